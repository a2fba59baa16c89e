"""Files and packages of the Dockerfiles; TEST_DOCKER=1 builds the CPU image and trains in it."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest

from conftest import ROOT

FILES = [ROOT / "docker" / "cpu.Dockerfile", ROOT / "docker" / "gpu.Dockerfile"]
each = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
NOT_IN_IMAGES = {"ccache", "graphviz", "libgtest-dev"}  # of the build stage: graphviz is in the last stage


def instructions(file):
    """The instructions of a Dockerfile as pairs: name, arguments."""
    lines = [line for line in file.read_text().splitlines() if line.strip() and not line.startswith("#")]
    text = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in text.splitlines()]


def packages(file):
    """The Debian packages of each stage that installs any, in order."""
    values = dict(line.split("=", 1) for name, line in instructions(file) if name == "ARG" and "=" in line)
    runs = [rest for name, rest in instructions(file) if name == "RUN" and "apt-get install" in rest]
    lists = [run.split("--no-install-recommends", 1)[1].split("&&")[0] for run in runs]
    return [set(text.replace("${RUN_LIBRARIES}", values["RUN_LIBRARIES"].strip('"')).split()) for text in lists]


def test_both_images_are_built_by_the_same_instructions():
    cpu, gpu = (re.split(r"^# -{80,}\n", file.read_text(), flags=re.MULTILINE) for file in FILES)
    assert len(cpu) == len(gpu) == 2
    assert cpu[1] == gpu[1]


@each
def test_base_images_are_pinned(file):
    images = [rest for name, rest in instructions(file) if name == "ARG" and "_IMAGE=" in rest]
    assert len(images) == 2 and all(re.search(r"bookworm-\d{8}-slim$|:\d+\.\d+\.\d+-cudnn-", image) for image in images)


@each
def test_stages_and_files_that_are_copied_exist(file):
    sent = {line.lstrip("!/") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    stages = set()
    for name, rest in instructions(file):
        if name == "FROM":
            stages.add(rest.rpartition(" AS ")[2])
        elif name == "COPY" and rest.startswith("--from="):
            assert rest.split()[0].removeprefix("--from=") in stages
        elif name == "COPY":
            for path in rest.split()[:-1]:
                assert (ROOT / path).exists() and (path == "." or path.split("/")[0] in sent), path


@each
def test_an_image_is_compiled_with_the_packages_of_setup(file):
    setup = (ROOT / "tools" / "setup.sh").read_text()
    expected = set(re.search(r"^packages=\(\n(.*?)^\)", setup, re.DOTALL | re.MULTILINE)[1].split())
    assert packages(file)[0] >= expected - NOT_IN_IMAGES


@each
def test_the_last_stage_has_each_library_and_no_headers(file):
    build, last = packages(file)
    assert not [name for name in last if name.endswith("-dev")]
    for library in (name.removesuffix("-dev") for name in build if name.endswith("-dev") and name.startswith("lib")):
        bare = re.sub(r"[\d.]+", "", library)
        assert library == "librandom123" or any(re.sub(r"[\d.]+", "", name).startswith(bare) for name in last), library


@each
def test_the_image_runs_as_a_user_and_forwards_signals(file):
    last = dict(instructions(file))
    assert last["USER"] not in ("root", "0", "0:0")
    assert json.loads(last["ENTRYPOINT"]) == ["tini", "--"]


def test_the_packages_of_jupyter_are_not_those_of_setup():
    def names(path):
        return {line.split("==")[0] for line in path.read_text().splitlines() if "==" in line and line[0] != "#"}

    own = names(ROOT / "docker" / "jupyter.txt")
    assert "jupyterlab" in own and not own & names(ROOT / "tools" / "requirements.txt")


# --- In an image ----------------------------------------------------------------------------------------------------
IMAGE = "tiny-imagenet-test"


def output(*command):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def container(tmp_path_factory):
    """The command of `docker run` for a user without a passwd entry, with /data and /runs mounted, in the CPU image.

    TEST_DOCKER_BUILD contains more arguments of docker build.
    """
    if os.environ.get("TEST_DOCKER") != "1":
        pytest.skip("set TEST_DOCKER=1 to build an image and train in it (three to ten minutes)")
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("no Docker daemon is running (docker info)")
    more = shlex.split(os.environ.get("TEST_DOCKER_BUILD", ""))
    done = subprocess.run(["docker", "build", *more, "-t", IMAGE, "-f", FILES[0], ROOT], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    folder, user = tmp_path_factory.mktemp("docker"), os.getuid() or 12345
    for name in ("data", "runs"):
        (folder / name).mkdir()
        os.chown(folder / name, user, user if os.getuid() == 0 else -1)

    def command(*arguments, options=("--rm",)):
        volumes = [f"--volume={folder / name}:/{name}" for name in ("data", "runs")]
        return ["docker", "run", f"--user={user}:{user}", *volumes, *options, IMAGE, *map(str, arguments)]

    command.folder, command.user = folder, user
    return command


@pytest.fixture
def start(container):
    """Start a detached container and return its name; it is removed at the end."""
    names = []

    def start(*arguments, options=()):
        names.append(f"{IMAGE}-{os.getpid()}-{len(names)}")
        output(*container(*arguments, options=["--detach", f"--name={names[-1]}", *options]))
        return names[-1]

    yield start
    for name in names:
        subprocess.run(["docker", "rm", "--force", name], capture_output=True)


def wait_for(found, seconds=600):
    until = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < until, f"nothing within {seconds} seconds"
        time.sleep(0.2)
    return value


def logs(name):
    done = subprocess.run(["docker", "logs", name], capture_output=True, text=True)
    return done.stdout + done.stderr


def test_the_image_has_the_checkout_and_no_compilers(container):
    assert {"prototxt", "python", "tools", "tests", ".venv"} <= set(output(*container("ls", "-A")).split())
    assert not output(*container("sh", "-c", "command -v gcc g++ cmake ninja git || true"))
    assert "conv1_1" in output(*container("tools/describe.py", "model8"))


def test_a_training_stopped_by_docker_resumes(container, start):
    output(*container("tools/sample.py", "/data/digits", "--train", 200, "--val", 40, "--test", 20))
    output(*container("tools/convert.py", "/data/digits", "/data/lmdb"))
    training = ["prototxt/model1/train.sh", "--data", "/data/lmdb", "--run", "/runs/m1", "--batch", 5, "--max-iter"]
    name = start(*training, 100_000)
    log = container.folder / "runs/m1/metrics.jsonl"
    wait_for(lambda: log.exists() and log.read_text())
    output("docker", "stop", "-t", "60", name)
    assert output("docker", "inspect", "--format={{.State.ExitCode}}", name).strip() == "143"
    stopped = int(re.search(r"at iteration (\d+)", logs(name))[1])
    output(*container(*training, stopped + 2, "--resume"))
    output(*container("tools/report.py", "/runs/m1", "--out", "/runs/report.html"))
    assert {path.lstat().st_uid for path in container.folder.rglob("*")} == {container.user}


def test_the_notebook_is_served_with_a_token_on_loopback(start):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    served = ["jupyter", "lab", "--ip", "0.0.0.0", "--no-browser", "python/notebooks/evaluate.ipynb"]
    name = start(*served, options=[f"--publish=127.0.0.1:{port}:8888"])
    token = wait_for(lambda: re.search(r"token=(\w+)", logs(name)))[1]
    address = f"http://127.0.0.1:{port}/api/contents/evaluate.ipynb"
    with urllib.request.urlopen(f"{address}?content=0&token={token}") as answer:
        assert json.load(answer)["writable"]
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(address)
