"""Commands of the pages: each runs, in order, in a copy of the checkout whose nets train in a moment."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import ROOT, write_small_nets, write_tiny_net

PAGES = [
    *("README.md", "prototxt/README.md", "caffe_layers/README.md", "caffe_layers/SPEED.md", "docker/README.md"),
    *("caffe_layers/GPU.md", "caffe_layers/pycaffe/README.md"),
    *("python/tiny_imagenet/experiment/README.md", "python/tiny_imagenet/training/README.md", "tests/README.md"),
]
# Commands that are not run here: a regular expression, and why.
ELSEWHERE = {
    r"^git clone": "the address is the reader's",
    r"^tools/(setup|demo|test|fetch_caffe)\.sh": "test.sh runs setup.sh, and test_demo.py the demo",
    r"^tools/download\.py tiny": "needs the network; test_download.py",
    r"pip install": "needs the network",
    r"jupyter lab": "does not end; test_notebook.py",
    r"^(cmake|ctest|pip)\b": "test.sh builds",
    r"^(docker|caffe|mkdir)\b": "needs a Docker daemon; test_docker.py",
    r"--gpu|tests/gpu\.sh": "needs a GPU; tests/gpu.sh",
    r"^(mpirun|srun|sbatch|ssh|for|done)\b": "needs several machines; test_mpi.py and test_dask*.py",
    r"dask (scheduler|worker)|--scheduler": "does not end; test_dask*.py",
    r"^tools/benchmark\.py|_speed\.py|comm_overlap": "takes long; test_benchmark.py",
    r"^tests/(fuzz|sanitize|arm64|pythons|pictures)|pytest": "takes long; see test.sh --all",
}


def blocks(page):
    """The fenced blocks of a page: the language and the text of each."""
    return re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def commands(page):
    """The command lines of a page without their comments; a line that ends in a backslash continues."""
    text = "".join(body for language, body in blocks(page) if language in ("", "sh"))
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [stripped for line in lines if (stripped := re.sub(r"\s+#.*", "", line).strip()) and stripped[0] != "#"]


def copy_checkout(folder):
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in names:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    if (ROOT / ".venv").exists():
        (folder / ".venv").symlink_to(ROOT / ".venv")
    (folder / "build").symlink_to(ROOT / "build")
    return folder


def run(command, folder):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def checkout(dataset, tmp_path_factory):
    """A copy with small nets, a data set in the layout of the real one, and a net of one's own."""
    folder = copy_checkout(tmp_path_factory.mktemp("pages") / "checkout")
    write_small_nets(folder / "prototxt")
    shutil.copytree(dataset, folder / "tiny-imagenet-200")
    write_tiny_net(folder / "my")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page(page, checkout):
    for command in commands(page):
        if not any(re.search(pattern, command) for pattern in ELSEWHERE):
            done = run(command, checkout)
            assert done.returncode == 0, f"{command}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES)
def test_transcripts_of_a_page(page, tmp_path):
    """Lines that start with $ are commands; the other lines of the block are their output."""
    for language, body in blocks(page):
        if language == "text" and body.startswith("$ "):
            folder = copy_checkout(tmp_path)
            shown = [line for line in body.splitlines() if not line.startswith("$ ")]
            output = [run(line[2:], folder) for line in body.splitlines() if line.startswith("$ ")]
            assert shown == "".join(done.stdout + done.stderr for done in output).splitlines()


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert "://" in target or ((ROOT / page).parent / target).exists(), target


def test_every_tool_is_in_the_readme():
    text = (ROOT / "README.md").read_text()
    for path in Path(ROOT, "tools").glob("[!_]*.py"):
        assert path.name in text


def test_the_models_of_the_readme_are_those_of_the_paper():
    """Parameters and accuracies."""
    from tiny_imagenet.models import zoo
    from tiny_imagenet.models.paper import PAPER

    rows = re.findall(
        r"^\| \[?(\w+)\]?\S* \| ([\d.]+) % \| ([\d,]+) \|", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    assert [(name, float(accuracy), int(count.replace(",", ""))) for name, accuracy, count in rows] == [
        (name, facts.validation_accuracy, zoo.MODELS[name].parameters) for name, facts in PAPER.items()
    ]
