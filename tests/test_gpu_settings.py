"""The settings of the GPU, in a build with CUDA and in one for the CPU alone; neither needs a GPU."""

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
needs_cuda = pytest.mark.skipif(not CUDA, reason="this build of Caffe is for the CPU alone")
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
    """What `code` prints in a process of its own, where these variables of Caffe's are set and no others."""
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
def test_a_switch_is_a_bool_and_nothing_else(put):
    for value in (1, 0, "no", None):
        with pytest.raises(TypeError):
            put(value)


def test_a_limit_is_a_whole_number_of_bytes_from_0():
    with pytest.raises(caffe.CaffeError, match="the workspace limit is -1: it must be 0 or more bytes"):
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
def test_without_cuda_the_environment_says_nothing():
    code = "print(caffe.tf32(), caffe.workspace_limit())"
    assert run(code, CAFFE_TF32="1", CAFFE_CUDNN_WORKSPACE_MB="x") == "False 0"


@needs_cuda
def test_settings_are_kept():
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
def test_the_environment_says_what_holds_at_first(environment, expected):
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
def test_a_value_that_cannot_be_read_is_an_error_that_names_it(call, name, value, allowed):
    code = f"try:\n    caffe.{call}\nexcept caffe.CaffeError as error:\n    print(error)"
    said = run(code, **{name: value})
    assert said == f'the environment variable {name} is "{value}": it must be {allowed}'


def test_what_is_missing_for_a_gpu_is_said_in_one_sentence():
    code = "\n".join(
        f"try:\n    caffe.{call}\nexcept caffe.CaffeError as error:\n    print(error)"
        for call in ("set_mode_gpu()", "set_device(0)")
    )
    said = run(code, CUDA_VISIBLE_DEVICES="").splitlines()  # hides those that there are
    assert len(said) == 2 and said[0] == said[1]
    assert "GPU" in said[0] and "Check failed" not in said[0]
    if not CUDA:
        assert "made without CUDA" in said[0]
