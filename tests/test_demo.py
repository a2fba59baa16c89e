"""tools/demo.sh: its output, its report and its files agree with each other and with scikit-learn."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, top_k_accuracy_score

from test_report import Page, row
from tiny_imagenet.data import lmdb_reader

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(not (ROOT / ".venv").is_dir(), reason="run tools/setup.sh first")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "runs"
    done = subprocess.run(
        [ROOT / "tools/demo.sh", "--quick", folder], capture_output=True, text=True, cwd=folder.parent
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_report_table_and_files_contain_the_same_scores(demo):
    folder, printed = demo
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    together = json.loads((folder / "ensemble.json").read_text())
    scores = {name: json.loads((folder / name / "evaluation.json").read_text()) for name in ("model1", "model6")}
    for member, (name, summary) in zip(together["members"], scores.items()):
        assert member["name"] == name
        assert (member["top1"], member["top5"]) == (summary["top1"], summary["top5"])
    table = [line.split() for line in printed[printed.index("==> Results") :].splitlines()]
    for name, summary in (*scores.items(), ("ensemble", together["ensemble"])):
        top1, top5 = (f"{100 * summary[key]:.2f}" for key in ("top1", "top5"))
        line = next(fields for fields in table if fields and fields[0] == name)
        assert top1 in line and top5 in line
        cells = row(page, "Ensemble of model1 + model6" if name == "ensemble" else name)
        assert cells[1] == top1 and top5 in cells


def test_scikit_learn_computes_the_same_scores(demo):
    folder, _ = demo
    keys, labels = zip(*((key, label) for key, label, _ in lmdb_reader.records(folder / "data/val.lmdb")))
    assert len(set(keys)) == 100
    rows = []
    for name in ("model1", "model6"):
        with np.load(folder / name / "predictions.npz") as found:
            assert found["keys"].tolist() == list(keys) and found["labels"].tolist() == list(labels)
            rows.append(found["probabilities"].astype(np.float64))
        summary = json.loads((folder / name / "evaluation.json").read_text())
        assert summary["top1"] == pytest.approx(accuracy_score(labels, rows[-1].argmax(axis=1)))
        assert summary["top5"] == pytest.approx(top_k_accuracy_score(labels, rows[-1], k=5, labels=range(10)))
    summary = json.loads((folder / "ensemble.json").read_text())["ensemble"]
    assert summary["top1"] == pytest.approx(accuracy_score(labels, np.mean(rows, axis=0).argmax(axis=1)))


def test_a_folder_of_others_is_not_replaced(tmp_path):
    (tmp_path / "kept").write_text("mine")
    done = subprocess.run([ROOT / "tools/demo.sh", "--quick", tmp_path], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert str(tmp_path) in done.stderr
    assert os.listdir(tmp_path) == ["kept"]


def test_an_unknown_argument_is_named():
    done = subprocess.run([ROOT / "tools/demo.sh", "--fast"], capture_output=True, text=True)
    assert done.returncode == 2 and "--fast" in done.stderr
