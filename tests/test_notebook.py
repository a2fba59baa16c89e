"""python/notebooks/evaluate.ipynb, executed by a kernel of this Python."""

import base64
import json
import os
import shutil
import subprocess
import sys

import pytest

from conftest import ROOT, write_tiny_net
from tiny_imagenet.evaluation import ensemble, evaluate, metrics
from tiny_imagenet.models import derive, nets
from tiny_imagenet.runs import Run
from tiny_imagenet.training.options import Options
from tiny_imagenet.training.train import train

NOTEBOOK = ROOT / "python" / "notebooks" / "evaluate.ipynb"


def execute(folder, upto=None, **settings):
    """Execute a copy of the notebook in `folder`, up to the cell with the id `upto`.

    Returns the finished process and the outputs of each code cell by its id, none if a cell failed.
    """
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    ids = [cell["id"] for cell in notebook["cells"]]
    notebook["cells"] = notebook["cells"][: ids.index(upto) + 1 if upto else None]
    (folder / "copy.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    # The kernel python3 is this Python, independent of the kernels and settings of the machine.
    kernel = folder / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "test", "language": "python"}))
    places = {
        "JUPYTER_PATH": folder / "jupyter",
        "JUPYTER_CONFIG_DIR": folder / "config",
        "JUPYTER_DATA_DIR": folder / "share",
        "JUPYTER_RUNTIME_DIR": folder / "runtime",
        "IPYTHONDIR": folder / "ipython",
    }
    own = {name: value for name, value in os.environ.items() if not name.startswith(("TINY_IMAGENET_", "JUPYTER"))}
    done = subprocess.run(
        [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--output", "done", "copy.ipynb"],
        cwd=folder,
        env={**own, **{name: str(value) for name, value in {**places, **settings}.items()}},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode:
        return done, {}
    cells = json.loads((folder / "done.ipynb").read_text(encoding="utf-8"))["cells"]
    return done, {cell["id"]: cell["outputs"] for cell in cells if cell["cell_type"] == "code"}


def printed(outputs):
    return "".join(text for output in outputs for text in output.get("text", []))


def pictures(outputs):
    return [
        base64.b64decode(output["data"]["image/png"]) for output in outputs if "image/png" in output.get("data", {})
    ]


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def cells(trained, tmp_path_factory):
    """The outputs of the notebook on the trained run."""
    before = files(trained)
    done, outputs = execute(tmp_path_factory.mktemp("notebook"), TINY_IMAGENET_RUN=trained)
    assert done.returncode == 0, done.stderr
    assert files(trained) == before
    return outputs


def test_every_cell_runs_without_a_warning(cells):
    for name, outputs in cells.items():
        assert outputs, name
        for output in outputs:
            assert output["output_type"] != "error" and "Warning" not in printed([output]), (name, output)


def test_the_net_is_shown(cells, trained, data):
    best = Run(trained).weights("best").parent.name
    assert printed(cells["settings"]) == f"{trained}: tiny, iteration {best}; 10 classes in {data}\n"
    rows = [line.split(None, 4) for line in printed(cells["net"]).splitlines()]
    assert ["conv1_1", "Convolution", "conv1_1", "1x4x6x6", "4x3x3x3, 4"] in rows
    for name in ("batch", "activations", "filters", "evaluate", "errors"):
        (png,) = pictures(cells[name])
        assert png.startswith(b"\x89PNG"), name


def test_the_scores_are_those_of_the_run(cells, trained, data):
    scores = metrics.summary(evaluate.predict_run(Run(trained), data))
    low, high = scores["top1_interval"]
    line = f"run: top-1 {scores['top1']:.2%} ({low:.2%} to {high:.2%}), top-5 {scores['top5']:.2%}, 40 images\n"
    assert printed(cells["evaluate"]).startswith(line)
    assert printed(cells["ensemble"]).startswith("One run:")


def test_a_mistake_is_an_exception_and_the_net_still_works(cells, trained):
    text = (trained / "deploy.prototxt").read_text()
    before = text[: text.index("bottom:")]
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    typo, misfit, after = printed(cells["mistakes"]).splitlines()
    assert typo.startswith(f"line {line}, column {column + 5}: typo.prototxt:") and "botom" in typo
    assert misfit.startswith("layer conv1_1: ")
    assert after == "same output: True"


def test_an_edited_net_differs_as_shown(cells):
    slope, change, _ = printed(cells["edit"]).splitlines()
    assert slope == "layer lrelu1_1: relu_param.negative_slope 0.01 -> 0.5"
    assert float(change.rsplit(" ", 1)[1]) > 0
    kernel = printed(cells["kernel"])
    assert "layer conv1_1: convolution_param.kernel_size 3 -> 5\n" in kernel
    assert "'conv1_1'; shape mismatch" in kernel
    assert "conv1_1_wider has weights of 4x3x5x5\n" in kernel


def test_a_net_with_prelu_is_edited_too(data, tmp_path):
    solver = write_tiny_net(tmp_path / "net")
    file = tmp_path / "net" / "train_val.prototxt"
    file.write_text(file.read_text().replace("LReLU", "PReLU").replace("lrelu", "prelu"))
    (tmp_path / "net" / "deploy.prototxt").write_text(nets.to_text(derive.deploy(nets.read(file))))
    train(str(solver), Options(data=data, run=tmp_path / "run", max_iter=5))
    done, cells = execute(tmp_path, "edit", TINY_IMAGENET_RUN=tmp_path / "run")
    assert done.returncode == 0, done.stderr
    old, new, change, _ = printed(cells["edit"]).splitlines()
    assert old == "layer prelu1_1 (PReLU) removed"
    assert new == "layer prelu1_1_fixed (LReLU) added after conv1_1"
    assert float(change.rsplit(" ", 1)[1]) > 0


def test_several_runs_are_averaged(trained, data, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained, other, symlinks=True)
    best = int(Run(trained).weights("best").parent.name)
    Run(other).link("best", next(n for n in Run(other).iterations() if n != best))
    settings = {"TINY_IMAGENET_RUNS": f"{trained}{os.pathsep}{other}", "TINY_IMAGENET_DATA": data}
    done, cells = execute(tmp_path, "ensemble", **settings)
    assert done.returncode == 0, done.stderr
    members = [evaluate.predict_run(Run(path), data) for path in (trained, other)]
    scores = [metrics.summary(given)["top1"] for given in (*members, ensemble.average(members))]
    lines = printed(cells["ensemble"]).splitlines()
    expected = [f"{name}: top-1 {top1:.2%}" for name, top1 in zip(("run", "other", "ensemble"), scores)]
    assert [line.split(" (")[0] for line in lines] == expected


def test_a_missing_run_is_named(tmp_path):
    done, _ = execute(tmp_path)
    assert done.returncode == 1
    assert "runs/demo/model1" in done.stderr.strip().splitlines()[-1]


def test_the_committed_notebook_is_clean():
    text = NOTEBOOK.read_text(encoding="utf-8")
    notebook = json.loads(text)
    assert text == json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"  # as Jupyter writes it
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    assert notebook["metadata"]["language_info"] == {"name": "python"}
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        assert cell["metadata"] == {} and cell["source"], cell["id"]
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None, cell["id"]
