"""A tenth row in models/zoo.py, with batch normalization, is all that every command needs."""

import csv
import json
import os
import shutil
import subprocess
import sys

import pytest

from conftest import ROOT
from tiny_imagenet.experiment import table2

ROW = """
    Model(
        "model10",
        "3-4 | 3-6 |",
        hidden=(8,),
        batch_norm=True,
        classes=10,
        batch=20,
        lr_schedule="cosine",
    ),
)

MODELS: dict"""


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    """Call a script of a copy of the checkout whose models have one row more."""
    top = tmp_path_factory.mktemp("ten") / "checkout"
    for name in ("python", "tools", "prototxt"):
        shutil.copytree(ROOT / name, top / name, ignore=shutil.ignore_patterns("__pycache__"))
    zoo = top / "python" / "tiny_imagenet" / "models" / "zoo.py"
    old = zoo.read_text()
    assert old.count("\n)\n\nMODELS: dict") == 1
    zoo.write_text(old.replace("\n)\n\nMODELS: dict", ROW))

    def run(name, *arguments):
        command = [sys.executable, top / "tools" / f"{name}.py", *arguments]
        path = os.pathsep.join([str(top / "python"), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, cwd=top)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("generate")
    return run


def test_it_is_generated_described_and_checked(call):
    call("generate", "--check")
    described = json.loads(call("describe", "model10", "--json"))
    conv = [9 * 3 * 4, 9 * 4 * 6]
    statistics = [2 * 4 + 1, 2 * 6 + 1]
    scales = [2 * 4, 2 * 6]
    fc = [(6 * 14 * 14 + 1) * 8, (8 + 1) * 10]
    assert described["parameters"] == sum([*conv, *statistics, *scales, *fc])
    assert [layer["type"] for layer in described["layers"]][2:6] == ["Convolution", "BatchNorm", "Scale", "ReLU"]
    assert described["depth"] == 4 and described["paper"] is None
    assert json.loads(call("describe", "model10", "--check", "--json")) == []
    assert "model10" in call("describe", "--help")


def test_it_is_trained_evaluated_and_reported(call, data, tmp_path):
    out = tmp_path / "experiment"
    call("reproduce", "model10", "--data", data, "--out", out, "--max-iter", "3", "--batch", "10", "--quiet")
    info = json.loads((out / "model10" / "seed1" / "run.json").read_text())
    assert info["nonlinearity"] == "ReLU" and info["schedule"]["lr_schedule"] == "cosine"
    (row,) = csv.DictReader((out / "table2.csv").read_text().splitlines())
    assert row["model"] == "model10" and row["top1"] and not row["paper_top1"]
    call("report", out / "model10" / "seed1", "--out", tmp_path / "report.html")
    assert "model10" in (tmp_path / "report.html").read_text()


def test_its_cells_of_the_paper_are_blank():
    scores = {1: {"top1": 40.0, "top5": 60.0, "classes": 200, "epochs": 3, "seconds": 1}}
    lines = table2.markdown([table2.Row("model1", 37.27, scores=scores), table2.Row("model10", scores=scores)])
    published, ours = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines.splitlines()[2:])
    assert published[:4] == ["model1", "37.27", "40.00", "+2.73"]
    assert ours[:4] == ["model10", "", "40.00", ""]
