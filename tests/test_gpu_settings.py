"""GPU settings, in builds with and without CUDA; neither needs a GPU."""

import os
import subprocess
import sys

import caffe
import pytest

MIB = 1 << 20


def with_cuda():
    try:
        caffe.set_tf32(True)
    except caffe.CaffeError:
        return False
    caffe.set_tf32(False)
    return True


CUDA = with_cuda()
needs_cuda = pytest.mark.skipif(not CUDA, reason="this build of Caffe has no CUDA")
cpu_only = pytest.mark.skipif(CUDA, reason="this build of Caffe has CUDA")
SWITCHES = [(caffe.tf32, caffe.set_tf32), (caffe.deterministic, caffe.set_deterministic)]


@pytest.fixture(autouse=True)
def _as_before():
    before = caffe.tf32(), caffe.deterministic(), caffe.workspace_limit()
    yield
    caffe.set_tf32(before[0])
    caffe.set_deterministic(before[1])
    caffe.set_workspace_limit(before[2])


def run(code, **environment):
    """Output of `code` in a new process, with only these variables of Caffe in its environment."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("CAFFE_")}
    command = [sys.executable, "-c", f"import caffe\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, env={**others, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_turning_off_works_in_every_build():
    for get, put in SWITCHES:
        put(False)
        assert get() is False
    caffe.set_workspace_limit(0)
    assert caffe.workspace_limit() == 0


@pytest.mark.parametrize("put", [caffe.set_tf32, caffe.set_deterministic])
def test_a_switch_must_be_a_bool(put):
    for value in (1, 0, "no", None):
        with pytest.raises(TypeError):
            put(value)


def test_a_limit_must_be_a_whole_number_of_bytes():
    with pytest.raises(caffe.CaffeError, match="-1"):
        caffe.set_workspace_limit(-1)
    for value in (1.5, "64", None):
        with pytest.raises(TypeError):
            caffe.set_workspace_limit(value)


@cpu_only
def test_turning_on_is_refused_without_cuda():
    for _, put in SWITCHES:
        with pytest.raises(caffe.CaffeError, match="without CUDA"):
            put(True)
    with pytest.raises(caffe.CaffeError, match="without CUDA"):
        caffe.set_workspace_limit(MIB)
    assert (caffe.tf32(), caffe.deterministic(), caffe.workspace_limit()) == (False, False, 0)


@cpu_only
def test_without_cuda_the_environment_is_ignored():
    code = "print(caffe.tf32(), caffe.workspace_limit())"
    assert run(code, CAFFE_TF32="1", CAFFE_CUDNN_WORKSPACE_MB="x") == "False 0"


@needs_cuda
def test_settings_can_be_read_back():
    for get, put in SWITCHES:
        put(True)
        assert get() is True
        put(False)
    caffe.set_workspace_limit(3 * MIB)
    assert caffe.workspace_limit() == 3 * MIB
    caffe.set_workspace_limit(512 * MIB)


@needs_cuda
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "False False 512"),
        ({"CAFFE_TF32": "1", "CAFFE_CUDNN_DETERMINISTIC": "1", "CAFFE_CUDNN_WORKSPACE_MB": "64"}, "True True 64"),
        ({"CAFFE_TF32": "0", "CAFFE_CUDNN_DETERMINISTIC": "", "CAFFE_CUDNN_WORKSPACE_MB": "0"}, "False False 0"),
    ],
)
def test_the_environment_sets_the_initial_values(environment, expected):
    code = "print(caffe.tf32(), caffe.deterministic(), caffe.workspace_limit() >> 20)"
    assert run(code, **environment) == expected


@needs_cuda
@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("CAFFE_TF32", "yes", "0 or 1"),
        ("CAFFE_TF32", "2", "0 or 1"),
        ("CAFFE_CUDNN_DETERMINISTIC", "True", "0 or 1"),
        ("CAFFE_CUDNN_WORKSPACE_MB", "-1", "a whole number from 0 to 16777216"),
        ("CAFFE_CUDNN_WORKSPACE_MB", "64.5", "a whole number from 0 to 16777216"),
        ("CAFFE_CUDNN_WORKSPACE_MB", "9" * 30, "a whole number from 0 to 16777216"),
    ],
)
@pytest.mark.parametrize("call", ["tf32()", "set_deterministic(True)", "set_mode_gpu()", "set_device(0)"])
def test_an_invalid_value_in_the_environment_is_an_error(call, name, value, allowed):
    code = f"try:\n    caffe.{call}\nexcept caffe.CaffeError as error:\n    print(error)"
    error = run(code, **{name: value})
    assert name in error and f'"{value}"' in error and allowed in error


def test_the_reason_for_a_missing_gpu_is_one_sentence():
    code = "\n".join(
        f"try:\n    caffe.{call}\nexcept caffe.CaffeError as error:\n    print(error)"
        for call in ("set_mode_gpu()", "set_device(0)")
    )
    errors = run(code, CUDA_VISIBLE_DEVICES="").splitlines()  # hides all GPUs
    assert len(errors) == 2 and errors[0] == errors[1]
    assert "GPU" in errors[0] and "Check failed" not in errors[0]
    if not CUDA:
        assert "without CUDA" in errors[0]
