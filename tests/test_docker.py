"""docker/: what the Dockerfiles copy, install and leave out; TEST_DOCKER=1 builds the CPU image and works in it."""

import fnmatch
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
from pathlib import Path

import pytest

from conftest import ROOT

FILES = [ROOT / "docker" / "cpu.Dockerfile", ROOT / "docker" / "gpu.Dockerfile"]
each = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem.split(".")[0])

# Of what tools/setup.sh installs, what no compilation in an image needs: nothing is kept for a second one, no C++ tests
# are built, and graphviz is in the last stage.
NOT_BUILT_WITH = {"ccache", "graphviz", "libgtest-dev"}
HEADERS_ALONE = {"librandom123-dev"}
# What a compilation may be made anew for.
COMPILED_FROM = {
    *("CMakeLists.txt", "caffe_layers", "docker/jupyter.txt", "tools/fetch_caffe.sh", "tools/requirements.txt"),
    "tools/requirements-cluster.txt",
}


def instructions(file):
    """Each instruction of a Dockerfile: its name and what follows it."""
    lines = [line for line in file.read_text().splitlines() if line.strip() and not line.startswith("#")]
    text = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in text.splitlines()]


def stages(file):
    """The instructions of each stage by the stage's name, "" for the last one."""
    found = {}
    for name, rest in instructions(file):
        if name == "FROM":
            current = found.setdefault(rest.partition(" AS ")[2], [])
        elif found:
            current.append((name, rest))
    return found


def defaults(file):
    """The ARGs above the first stage."""
    found = {}
    for name, rest in instructions(file):
        if name == "FROM":
            break
        key, _, value = rest.partition("=")
        found[key] = value.strip('"')
    return found


def packages(file, stage):
    """The Debian packages that a stage installs."""
    (run,) = (rest for name, rest in stages(file)[stage] if name == "RUN" and "apt-get install" in rest)
    names = run.split("--no-install-recommends", 1)[1].split("&&")[0]
    return set(names.replace("${RUN_LIBRARIES}", defaults(file)["RUN_LIBRARIES"]).split())


def copies(stage):
    """What a stage copies: where from (a stage, or "" for the checkout), and which paths."""
    for name, rest in stage:
        if name == "COPY":
            words = rest.split()
            source = words.pop(0).partition("--from=")[2] if words[0].startswith("--from=") else ""
            yield source, words[:-1]


def is_sent(path):
    """Whether .dockerignore lets a path pass."""
    sent = True
    parts = path.split("/")
    begins = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.lstrip("!")
            if pattern.startswith("**/"):
                matches = any(fnmatch.fnmatchcase(part, pattern[3:]) for part in parts)
            else:
                assert "**" not in pattern
                same_depth = [begin for begin in begins if begin.count("/") == pattern.count("/")]
                matches = any(fnmatch.fnmatchcase(begin, pattern) for begin in same_depth)
            if matches:
                sent = line.startswith("!")
    return sent


def test_the_two_files_are_the_same_below_the_line():
    cpu, gpu = (re.split(r"^# -{80,}\n", file.read_text(), flags=re.MULTILINE) for file in FILES)
    assert len(cpu) == len(gpu) == 2
    assert cpu[1] == gpu[1]


@each
def test_a_comment_says_how_to_build_and_run(file):
    comment = file.read_text().split("\n\n")[0]
    assert all(line.startswith("#") for line in comment.splitlines())
    assert f"docker build -t tiny-imagenet{':gpu' if 'gpu' in file.name else ''} -f docker/{file.name} ." in comment
    assert '--user "$(id -u):$(id -g)"' in comment
    assert ("--gpus all" in comment) == ("gpu" in file.name)


@each
def test_base_images_are_pinned(file):
    images = [defaults(file)[name] for name in ("BUILD_IMAGE", "RUN_IMAGE")]
    for image in images:
        assert re.fullmatch(
            r"debian:bookworm-\d{8}-slim|nvidia/cuda:\d+\.\d+\.\d+-cudnn-(devel|runtime)-ubuntu24.04", image
        )
    assert images[0].replace("devel", "runtime") == images[1]


@each
def test_stages_are_there_before_they_are_used(file):
    seen = {"${BUILD_IMAGE}", "${RUN_IMAGE}"}
    for name, rest in instructions(file):
        if name == "FROM":
            base, _, stage = rest.partition(" AS ")
            assert base in seen
            seen.add(stage)
        elif name == "COPY" and rest.startswith("--from="):
            assert rest.split()[0].partition("=")[2] in seen


@each
def test_what_is_copied_exists_and_is_sent(file):
    for stage in stages(file).values():
        for source, paths in copies(stage):
            for path in paths if not source else ():
                assert (ROOT / path).exists(), path
                assert path == "." or is_sent(path), path


@each
def test_an_edit_of_python_compiles_nothing(file):
    found = stages(file)
    last = found.pop("")
    for stage in found.values():
        for source, paths in copies(stage):
            assert source or set(paths) <= COMPILED_FROM
    after = [name for name, _ in last[last.index(("COPY", ". .")) :]]
    assert after.count("RUN") == 1  # who may write
    assert all(source or paths == ["."] for source, paths in copies(last))


@each
def test_compilers_and_headers_are_those_of_setup(file):
    setup = (ROOT / "tools" / "setup.sh").read_text()
    expected = set(re.search(r"^packages=\(\n(.*?)^\)", setup, re.DOTALL | re.MULTILINE)[1].split())
    expected |= set(re.search(r'"" *\) packages\+=\((.*?)\)', setup)[1].split())  # where there is no Python yet
    assert packages(file, "tools") == expected - NOT_BUILT_WITH
    assert expected >= NOT_BUILT_WITH


@each
def test_the_last_stage_has_each_library_and_no_build_tools(file):
    built, run = packages(file, "tools"), packages(file, "")
    tools = {name for name in built if not name.startswith("lib")} - {"ca-certificates", "python3"}
    assert not run & tools
    assert not [name for name in run if name.endswith("-dev")]
    assert {"graphviz", "python3", "tini"} <= run

    def bare(name):
        return re.sub(r"[\d.]+", "", name)

    libraries = {name[: -len("-dev")] for name in built - HEADERS_ALONE if re.fullmatch("lib.*-dev", name)}
    assert len(libraries) >= 11
    for library in libraries:
        assert [name for name in run if bare(name).startswith(bare(library))], library


@each
def test_dask_and_mpi_come_with_an_argument_alone(file):
    asked = "${CLUSTER:+openmpi-bin}"
    assert asked in packages(file, "") and not [name for name in packages(file, "") if name.startswith("openmpi")]
    assert (
        "openmpi-bin"
        in re.search(r"if \$cluster; then\n +packages\+=\((.*?)\)", (ROOT / "tools/setup.sh").read_text())[1]
    )
    found = stages(file)
    for stage, rest in (("build", "-r /requirements-cluster.txt"), ("", asked)):
        (run,) = (n for n, (name, text) in enumerate(found[stage]) if name == "RUN" and rest in text)
        assert ("ARG", "CLUSTER") in found[stage][:run]
    assert ("ENV", "OMPI_MCA_btl_vader_single_copy_mechanism=none") in found[""]


def test_the_libraries_are_those_that_caffe_is_linked_to():
    release = Path("/etc/os-release")
    system = (
        dict(line.split("=", 1) for line in release.read_text().split("\n") if "=" in line) if release.exists() else {}
    )
    here = f"{system.get('ID')} {system.get('VERSION_ID')}".replace('"', "")
    file = {"debian 12": FILES[0], "ubuntu 24.04": FILES[1]}.get(here)
    library = ROOT / "build" / "libcaffe.so"
    if file is None:
        pytest.skip("this is neither Debian 12 nor Ubuntu 24.04")
    if not library.exists() or shutil.which("readelf") is None:
        pytest.skip("Caffe's library is not in build/, or there is no readelf")
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", _out("readelf", "-d", library))
    paths = dict(re.findall(r"^\s*(\S+) => (\S+) ", _out("ldd", library), re.MULTILINE))
    owners = set()
    for name in needed:
        real = os.path.realpath(paths.get(name, "/"))
        for path in (real, real.removeprefix("/usr")):  # dpkg knows the one that was in the package
            done = subprocess.run(["dpkg-query", "-S", path], capture_output=True, text=True)
            owners |= {line.split(":")[0] for line in done.stdout.splitlines()}
    assert owners - {"libc6", "libgcc-s1", "libstdc++6"} == set(defaults(file)["RUN_LIBRARIES"].split())


@each
def test_it_runs_as_any_user_and_passes_signals_on(file):
    last = stages(file)[""]
    by_name = dict(last)
    assert by_name["USER"] not in ("root", "0", "0:0") and last.index(("USER", by_name["USER"])) > last.index(
        ("COPY", ". .")
    )
    assert json.loads(by_name["ENTRYPOINT"]) == ["tini", "--"]
    assert json.loads(by_name["CMD"])
    environment = " ".join(rest for name, rest in last if name == "ENV")
    home = re.search(r"HOME=(\S+)", environment)[1]
    assert [rest for name, rest in last if name == "RUN" and f"mkdir -m 1777 {home}" in rest]


@pytest.mark.parametrize(
    "file", [*sorted((ROOT / "docker").iterdir()), ROOT / ".dockerignore"], ids=lambda file: file.name
)
def test_no_hosts_or_proxies_are_named(file):
    text = file.read_text().lower()
    for word in ("://", "pypi", "proxy", "index-url", "cert", "deb.debian", "archive.ubuntu"):
        allowed = text.replace("ca-certificates", "").replace("certifi==", "")
        assert word not in allowed, word


def test_jupyters_packages_are_pinned_and_add_to_those_of_setup():
    def names(path):
        lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        assert all(re.match(r"[a-z0-9-]+==\S+( ;|$)", line) for line in lines)
        return {line.split("==")[0] for line in lines}

    own = names(ROOT / "docker" / "jupyter.txt")
    assert "jupyterlab" in own
    assert not own & names(ROOT / "tools" / "requirements.txt")


def test_dockerignore_leaves_out_what_no_image_needs():
    left_out = """
        .git .git/config .venv/bin/python build/libcaffe.so build-gpu/CMakeCache.txt data/train.lmdb/data.mdb
        runs/model1/run.json dist/x.whl tiny-imagenet-200/words.txt report.html .hypothesis/x .pytest_cache/x
        python/tiny_imagenet/__pycache__/zoo.pyc python/notebooks/.ipynb_checkpoints/evaluate.ipynb
    """
    assert not [path for path in left_out.split() if is_sent(path)]


def test_dockerignore_passes_every_file_of_the_checkout():
    listing = ["git", "-C", ROOT, "ls-files"]
    done = subprocess.run(listing, capture_output=True, text=True) if shutil.which("git") else None
    if done is None or done.returncode:
        pytest.skip("this is no git checkout, or there is no git")
    elsewhere = re.compile(r"\.ci/|\.clang-format$|\.gitignore$|\.github/")
    files = [path for path in done.stdout.splitlines() if not elsewhere.match(path)]
    assert [path for path in files if not is_sent(path)] == []


# --- In an image ----------------------------------------------------------------------------------------------------
IMAGE = "tiny-imagenet-test"


def _out(*command):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def image():
    """The CPU image, built from this checkout. TEST_DOCKER_BUILD has more arguments of docker build."""
    if os.environ.get("TEST_DOCKER") != "1":
        pytest.skip("TEST_DOCKER=1 builds an image and works in it (three to ten minutes)")
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("no Docker engine answers here (docker info)")
    more = shlex.split(os.environ.get("TEST_DOCKER_BUILD", ""))
    command = ["docker", "build", *more, "-t", IMAGE, "-f", str(FILES[0]), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return IMAGE


@pytest.fixture(scope="module")
def container(image, tmp_path_factory):
    """Begin `docker run` of a command, as a user without a passwd entry, with /data and /runs mounted."""
    folder = tmp_path_factory.mktemp("docker")
    user = os.getuid() or 12345
    for name in ("data", "runs"):
        (folder / name).mkdir()
        os.chown(folder / name, user, user if os.getuid() == 0 else -1)
    ids = f"{user}:{user if os.getuid() == 0 else os.getgid()}"

    def command(*arguments, options=()):
        volumes = [f"--volume={folder / name}:/{name}" for name in ("data", "runs")]
        return ["docker", "run", f"--user={ids}", *volumes, *options, image, *map(str, arguments)]

    command.folder, command.user = folder, user
    return command


def run(container, *arguments, status=0):
    done = subprocess.run(container(*arguments, options=["--rm"]), capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def converted(container):
    run(container, "tools/sample.py", "/data/digits", "--train", 200, "--val", 40, "--test", 20)
    run(container, "tools/convert.py", "/data/digits", "/data/lmdb")


@pytest.fixture
def started(container):
    """Start a container in the background, by its name; it is removed in the end."""
    names = []

    def start(*arguments, options=()):
        names.append(f"{IMAGE}-{os.getpid()}-{len(names)}")
        _out(*container(*arguments, options=["--detach", f"--name={names[-1]}", *options]))
        return names[-1]

    yield start
    for name in names:
        subprocess.run(["docker", "rm", "--force", name], capture_output=True)


def logs(name):
    done = subprocess.run(["docker", "logs", name], capture_output=True, text=True)
    return done.stdout + done.stderr


def wait_for(found, seconds=60):
    for _ in range(seconds * 5):
        if value := found():
            return value
        time.sleep(0.2)
    raise AssertionError("it never came")


def test_the_image_has_the_checkout_and_no_compilers(container):
    listed = run(container, "ls", "-A").split()
    assert {"prototxt", "python", "tools", "tests", ".venv"} <= set(listed)
    assert not {".git", "runs", "data", "tiny-imagenet-200"} & set(listed)
    assert not run(container, "sh", "-c", "command -v gcc g++ cmake ninja git || true")
    assert "conv1_1" in run(container, "tools/describe.py", "model8")


def test_a_training_stopped_by_docker_goes_on(container, converted, started):
    training = ["prototxt/model1/train.sh", "--data", "/data/lmdb", "--run", "/runs/m1", "--batch", 5, "--max-iter"]
    name = started(*training, 5000)
    log = container.folder / "runs/m1/metrics.jsonl"
    wait_for(lambda: log.exists() and log.read_text())
    _out("docker", "stop", "-t", "60", name)
    assert _out("docker", "inspect", "--format={{.State.ExitCode}}", name).strip() == "143"
    stopped = int(re.search(r"stopped by SIGTERM at iteration (\d+), with a checkpoint", logs(name))[1])
    run(container, *training, stopped + 2, "--resume")
    run(container, "tools/evaluate.py", "/runs/m1")
    run(container, "tools/describe.py", "model1", "--draw", "/runs/model1.png")
    run(container, "tools/report.py", "/runs/m1", "--out", "/runs/report.html")
    assert {path.lstat().st_uid for path in container.folder.rglob("*")} == {container.user}


def test_the_notebook_is_served_with_a_token_on_loopback(started):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    served = ["jupyter", "lab", "--ip", "0.0.0.0", "--no-browser", "python/notebooks/evaluate.ipynb"]
    name = started(*served, options=[f"--publish=127.0.0.1:{port}:8888"])
    token = wait_for(lambda: re.search(r"token=(\w+)", logs(name)))[1]
    address = f"http://127.0.0.1:{port}/api/contents/evaluate.ipynb"
    with urllib.request.urlopen(f"{address}?content=0&token={token}") as answer:
        assert json.load(answer)["writable"]
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(address)
