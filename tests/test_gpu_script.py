"""tests/gpu.sh, tests/gpu_models.py and the choice that tools/setup.sh makes, with stand-ins for what needs a GPU."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

import gpu_models
from conftest import ROOT

BUILD = ROOT / "build"
needs_caffe = pytest.mark.skipif(not (BUILD / "caffe").is_file(), reason="no caffe program in build/: tools/setup.sh")
PASSES = "#!/bin/sh\nexit 0\n"


def script(*arguments, **environment):
    """tests/gpu.sh, finished; without what this machine may have of CUDA."""
    settings = {"PYTHON": sys.executable, "CUDA_HOME": "/nowhere", **environment}
    return subprocess.run(
        [ROOT / "tests" / "gpu.sh", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": "/usr/bin:/bin", **settings},
    )


def put(folder, name, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


@pytest.fixture
def programs(tmp_path):
    """A folder of programs that all pass, among them a caffe program that says what it is asked for."""
    folder = tmp_path / "programs"
    for name in ("rectifier_cuda_test", "rectifier_cuda_benchmark", "caffe_layers_test", "caffe_gpu_test"):
        put(folder, name, PASSES)
    put(folder, "upstream_gpu_test", PASSES)
    put(folder, "caffe", "#!/bin/sh\necho 'Iteration 0 (1 iter/s), loss = 5.3'\necho 'I accuracy = 0.9'\n")
    (folder / "nets").mkdir()
    return folder


def test_all_that_pass(programs):
    done = script("--programs", programs, "--only", "kernels,layers,cudnn,upstream,bandwidth,learning")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All 6 checks on the GPU passed." in done.stdout
    assert "loss 5.300 to 5.300, top-1 90.0 % of 100 images" in done.stdout
    assert "Skipped" not in done.stdout


def test_one_that_fails_is_named(programs):
    put(programs, "upstream_gpu_test", "#!/bin/sh\nexit 1\n")
    put(programs, "caffe_gpu_test", "#!/bin/sh\nexit 77\n")
    put(programs, "caffe", "#!/bin/sh\necho 'Iteration 0 (1 iter/s), loss = 5.3'\necho 'I accuracy = 0.2'\n")
    done = script("--programs", programs, "--only", "kernels,cudnn,upstream,learning")
    assert done.returncode == 1
    assert "Skipped: cuDNN's convolutions" in done.stdout
    assert done.stderr.splitlines() == [
        "Failed: Upstream's tests of the GPU",
        "Failed: A short training, and a test of what it has learnt",
    ]


def test_what_cannot_run_says_why(programs):
    (programs / "caffe_gpu_test").unlink()
    (programs / "caffe").unlink()
    done = script("--programs", programs)
    assert done.returncode == 0, done.stderr
    for text in [
        f"caffe_gpu_test: not in {programs}",
        f"The nine nets beside the CPU: no caffe program in {programs} or beside it",
        "Several GPUs: there is one",
        "memcheck, racecheck and initcheck: no compute-sanitizer",
        f"Training speed: no caffe program in {programs}",
    ]:
        assert f"Skipped: {text}" in done.stdout
    done = script("--programs", programs, "--only", "python", PYTHON="/bin/false")
    assert "Skipped: The Python tests (/bin/false)" in done.stdout
    assert done.returncode == 77


def test_several_gpus_are_those_that_cuda_sees_and_need_nccl(programs, tmp_path):
    """CUDA_VISIBLE_DEVICES leaves two of the four that the driver lists."""
    stubs = tmp_path / "bin"
    put(stubs, "nvidia-smi", '#!/bin/sh\nfor n in 0 1 2 3; do echo "GPU $n: Model (UUID: GPU-$n)"; done\n')
    answers = 'for n in 0 1; do echo "I common.cpp:178] Device id:       $n"; done'
    learns = "echo 'Iteration 0 (1 iter/s), loss = 5.3'; echo 'I accuracy = 0.9'"
    put(programs, "caffe", f"#!/bin/sh\ncase $1 in device_query) {answers} ;; *) {learns} ;; esac\n")
    several = "--programs", programs, "--only", "several"
    path = f"{stubs}:/usr/bin:/bin"
    done = script(*several, PATH=path)
    assert done.returncode == 77, done.stdout + done.stderr
    assert "Skipped: Several GPUs: this build has no NCCL" in done.stdout
    put(stubs, "ldd", "#!/bin/sh\necho '\tlibnccl.so.2 => /usr/lib/libnccl.so.2 (0x1)'\n")
    done = script(*several, PATH=path)
    assert [line for line in done.stdout.splitlines() if line.startswith("==>")] == [
        "==> 2 GPUs beside the CPU",
        "==> 2 GPUs learn",
    ]
    assert "Failed: 2 GPUs beside the CPU" in done.stderr  # for the stand-in writes no weights


def test_without_a_gpu_nothing_runs(programs):
    put(programs, "rectifier_cuda_test", "#!/bin/sh\necho '[  SKIPPED ] no CUDA device: no driver'\n")
    done = script("--programs", programs)
    assert (done.returncode, done.stderr) == (77, "")
    assert done.stdout == "Skipped: everything: no CUDA device: no driver\nNothing ran on a GPU.\n"
    done = script()
    assert done.returncode == 77
    assert "Skipped: everything: no nvcc on the PATH or in /nowhere/bin (see --programs)" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--foo"], "unknown argument '--foo'"),
        (["--programs"], "--programs needs a folder that is there"),
        (["--programs", "/nowhere"], "not '/nowhere'"),
        (["--pack"], "--pack needs the folder to make"),
        (["--only", "kernels,speed"], "--only knows no 'speed': it is one of kernels, layers"),
        (["--no-cuda"], "--no-cuda goes with --pack"),
        (["--pack", ROOT], "was not made by --pack"),
    ],
)
def test_bad_use(arguments, says):
    done = script(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_says_how_to_take_it_elsewhere():
    text = script("--help").stdout
    assert "tests/gpu.sh --pack packed --no-cuda" in text and "tests/gpu.sh --programs packed" in text
    assert all(part in text for part in re.search('PARTS="(.*)"', (ROOT / "tests" / "gpu.sh").read_text())[1].split())


@needs_caffe
def test_a_pack_runs_with_nothing_but_itself(programs, tmp_path):
    """Here of the CPU's program: with the linker told to look there alone, all libraries but libc's come from it."""
    (programs / "caffe").unlink()
    (programs / "caffe").symlink_to(BUILD / "caffe")
    packed = tmp_path / "packed"
    done = script("--programs", programs, "--pack", packed)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"==> {packed}: [\d.]+[MG]", done.stdout)
    found = subprocess.run(
        ["ldd", packed / "caffe"], capture_output=True, text=True, env={"LD_LIBRARY_PATH": str(packed)}, check=True
    ).stdout
    elsewhere = [line.split()[0] for line in found.splitlines() if str(packed) not in line]
    assert {re.split(r"[.-]", name.rsplit("/", 1)[-1])[0] for name in elsewhere} <= {
        *("linux", "ld", "libc", "libm", "libdl", "librt", "libpthread", "libresolv", "libutil"),
    }
    assert "libcaffe.so" in os.listdir(packed)
    assert not [name for name in os.listdir(packed) if name.startswith(("libc.so", "libcuda.so"))]
    assert len(json.loads((packed / "cases.json").read_text())) == 9
    run = {"LD_LIBRARY_PATH": str(packed), "PATH": "/nowhere"}
    subprocess.run([packed / "caffe", "--version"], env=run, check=True, capture_output=True)
    (packed / "old").touch()
    assert script("--programs", programs, "--pack", packed).returncode == 0  # its own is made anew
    assert not (packed / "old").exists()
    # and what is packed is what it runs
    done = script("--programs", packed, "--only", "kernels,upstream")
    assert done.returncode == 0, done.stdout + done.stderr


# --- gpu_models.py ---


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "nets"
    gpu_models.write(folder)
    return folder


def models(*arguments):
    command = [sys.executable, ROOT / "tests" / "gpu_models.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@needs_caffe
def test_a_net_beside_itself(nets):
    done = models(BUILD / "caffe", nets, "model1", "--gpu", "none")
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(
        r"model1  CPU, 2 threads: loss (\S+) \(CPU (\S+)\), update apart by at most (\S+) in .*\n", done.stdout
    )
    assert found[1] == found[2]
    assert float(found[3]) < 1e-5


@needs_caffe
def test_the_history_is_what_caffes_own_messages_say(nets, tmp_path, monkeypatch):
    from caffe.proto import caffe_pb2

    kept = {}
    history = gpu_models.history

    def also(path):
        kept["state"], kept["net"] = path.read_bytes(), path.with_suffix(".caffemodel").read_bytes()
        return history(path)

    monkeypatch.setattr(gpu_models, "history", also)
    _, values = gpu_models.update(BUILD / "caffe", nets, "model1")
    state = caffe_pb2.SolverState.FromString(kept["state"])
    net = caffe_pb2.NetParameter.FromString(kept["net"])
    assert [*values] == [f"{layer.name}/{i}" for layer in net.layer for i in range(len(layer.blobs))]
    assert [[*blob.data] for blob in state.history] == [blob.tolist() for blob in values.values()]
    assert any(values["conv1_1/0"])


def test_a_difference_is_found(nets):
    import numpy as np

    one = {"a/0": np.array([3, 4], "<f4"), "a/1": np.zeros(2, "<f4")}
    assert gpu_models.apart(one, {**one, "a/0": np.array([3, 4.5], "<f4")}) == {"a/0": 0.1, "a/1": 0}
    with pytest.raises(gpu_models.FailedError, match="the parameters differ"):
        gpu_models.apart(one, {"a/0": one["a/0"]})


@needs_caffe
def test_a_program_that_fails_is_named(nets, tmp_path):
    put(tmp_path, "caffe", "#!/bin/sh\necho 'no kernel image' >&2\nexit 3\n")
    done = models(tmp_path / "caffe", nets, "model1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("ended with status 3: no kernel image")
    assert models(BUILD / "caffe", nets, "model0").returncode == 2
    failed = models(BUILD / "caffe", nets, "model1", "--gpu", "none", "--tolerance=-1")  # not even the same bits
    assert failed.returncode == 1 and "FAILED, -1 is allowed" in failed.stdout


# --- tools/setup.sh: for which device? ---


def choice(tmp_path, *arguments, nvcc=False, smi=False, told=None):
    """What a copy of the script would do on a machine with these."""
    root = tmp_path / "checkout"
    put(root / "tools", "setup.sh", (ROOT / "tools" / "setup.sh").read_text().replace("/dev/nvidia0", "/nowhere"))
    if told:
        (root / "build").mkdir(exist_ok=True)
        (root / "build" / ".setup-for").write_text(told)
    stubs = tmp_path / "bin"
    put(stubs, "true", PASSES)
    if nvcc:
        put(stubs, "nvcc", PASSES)
    if smi:
        put(stubs, "nvidia-smi", "#!/bin/sh\necho 'GPU 0: Model (UUID: GPU-0)'\n")
    environment = {**os.environ, "PATH": f"{stubs}:/usr/bin:/bin", "CUDA_HOME": "/nowhere"}
    command = [root / "tools" / "setup.sh", "--dry-run", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(
    ("arguments", "there", "says", "device"),
    [
        ([], {}, None, "the CPU alone"),
        ([], {"nvcc": True}, "but no GPU (--gpu builds for a GPU all the same)", "the CPU alone"),
        ([], {"smi": True}, "there is a GPU, but no nvcc (install CUDA's toolkit", "the CPU alone"),
        ([], {"nvcc": True, "smi": True}, "there is one, and", "a GPU, with"),
        (["--gpu"], {"nvcc": True}, None, "a GPU, with"),
        (["--cpu"], {"nvcc": True, "smi": True}, None, "the CPU alone"),
        ([], {"nvcc": True, "told": "gpu"}, "as an earlier --gpu said", "a GPU, with"),
        ([], {"nvcc": True, "smi": True, "told": "cpu"}, None, "the CPU alone"),
        ([], {"told": "gpu"}, None, "the CPU alone"),  # CUDA is gone
        (["--cpu"], {"nvcc": True, "told": "gpu"}, None, "the CPU alone"),
    ],
)
def test_setup_chooses(arguments, there, says, device, tmp_path):
    done = choice(tmp_path, *arguments, **there)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1].startswith(f"==> Build for {device}")
    assert (says in lines[0]) if says else len(lines) == 1


def test_setup_builds_anew_with_a_library_that_has_come(tmp_path):
    """NCCL was installed, as the tools advise where several GPUs are named without it."""
    put(tmp_path / "bin", "nvcc", PASSES)
    (tmp_path / "include").symlink_to("targets/include")  # as NVIDIA's packages have it
    setup = (ROOT / "tools" / "setup.sh").read_text()
    inputs = re.search(r"^inputs\(\) \{\n.*?^\}\n", setup, re.DOTALL | re.MULTILINE)[0]
    given = f"python={sys.executable} nvcc={tmp_path}/bin/nvcc cluster=false for_device=()"
    texts = []
    for device in ("cpu", "gpu"):
        for header in (None, "nccl.h", "cudnn_version.h"):
            if header:
                put(tmp_path / "targets" / "include", header, "")
            command = ["bash", "-euc", f"{inputs}{given} device={device}; inputs"]
            texts.append(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
        shutil.rmtree(tmp_path / "targets" / "include")
    assert len(set(texts[:3])) == 1  # nothing to a build for the CPU
    assert len(set(texts)) == 4


def test_setup_refuses_what_cannot_be(tmp_path):
    done = choice(tmp_path, "--gpu")
    assert done.returncode == 1
    assert "--gpu needs CUDA's compiler, and nvcc is neither on the PATH nor in /nowhere/bin" in done.stderr
    done = choice(tmp_path, "--gpu", "--cpu")
    assert (done.returncode, done.stderr) == (2, "setup.sh: error: --gpu or --cpu, not both\n")
