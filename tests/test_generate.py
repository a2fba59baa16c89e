import os
import re
import shutil
import subprocess

import pytest

from conftest import ROOT
from tiny_imagenet.errors import NetError
from tiny_imagenet.models import generate, paper, zoo

TOOLS = ROOT / "tools"
PROTOTXT = ROOT / "prototxt"
MODEL = zoo.MODELS["model1"]


@pytest.mark.parametrize("name", zoo.MODELS)
def test_the_committed_files_are_up_to_date(name):
    assert generate.differing(zoo.MODELS[name], PROTOTXT, TOOLS) == []
    assert os.access(PROTOTXT / name / "train.sh", os.X_OK)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("solver.prototxt", b"base_lr: 0.01", b"base_lr: 0.005"),
        ("solver.prototxt", b"# Model 1 of", b"# My Model 1 of"),  # a comment
        ("solver.prototxt", b"\n", b"\r\n"),
        ("solver.prototxt", b"\n", b" caf\xe9\n"),  # not UTF-8
        ("deploy.prototxt", b"# digest: ", b"# digest: f"),
        ("train_val.prototxt", b"# digest: ", b"# my note\n# was: "),
        ("train.sh", b'"$@"', b'--base-lr 0.005 "$@"'),
    ],
)
def test_an_edited_file_is_kept_unless_forced(file, old, new, tmp_path):
    generate.write([MODEL], tmp_path, TOOLS)
    assert generate.write([MODEL], tmp_path, TOOLS) == []
    path = tmp_path / "model1" / file
    mine = path.read_bytes().replace(old, new)
    assert mine != path.read_bytes()
    path.write_bytes(mine)
    assert generate.differing(MODEL, tmp_path, TOOLS) == [path]
    with pytest.raises(NetError, match=re.escape(str(path))):
        generate.write([zoo.MODELS["model2"], MODEL], tmp_path, TOOLS)
    assert not (tmp_path / "model2").exists() and path.read_bytes() == mine
    assert path in generate.write([zoo.MODELS["model2"], MODEL], tmp_path, TOOLS, force=True)
    assert generate.differing(MODEL, tmp_path, TOOLS) == []


def test_an_older_generated_file_is_updated(tmp_path):
    generate.write([MODEL], tmp_path, TOOLS)
    changed = generate.write([MODEL.replace(base_lr=0.5)], tmp_path, TOOLS)
    assert [path.name for path in changed] == ["train_val.prototxt", "deploy.prototxt", "solver.prototxt"]  # headers
    assert "base_lr: 0.5" in changed[-1].read_text()


def test_files_of_a_removed_stage_are_deleted(tmp_path):
    row = zoo.MODELS["model9"]
    generate.write([row], tmp_path, TOOLS)
    alone = row.replace(shallow=())
    edited = tmp_path / "model9" / "stages" / "1" / "deploy.prototxt"
    assert edited in generate.differing(alone, tmp_path, TOOLS)
    text = edited.read_text()
    edited.write_text(text + "# mine")
    with pytest.raises(NetError, match=r"deploy\.prototxt"):
        generate.write([alone], tmp_path, TOOLS)
    edited.write_text(text)
    generate.write([alone], tmp_path, TOOLS)
    assert not (tmp_path / "model9" / "stages").exists()
    assert generate.differing(alone, tmp_path, TOOLS) == []


def test_a_train_script_trains_with_the_solver_beside_it(tmp_path):
    """Also outside the checkout, in a folder with a space, from any working folder, and through a link."""
    folder = tmp_path / "my nets"
    generate.write([MODEL.replace(classes=7)], folder, TOOLS)
    script = folder / "model1" / "train.sh"
    link = tmp_path / "link.sh"
    link.symlink_to(script)
    solver = folder / "model1" / "solver.prototxt"
    solver.write_text(solver.read_text().replace("base_lr: 0.01", "base_lr: -1"))
    for command in (script, link):
        call = [command, "--data", tmp_path / "nowhere", "--run", tmp_path / "run"]
        done = subprocess.run(call, capture_output=True, text=True, cwd="/")
        assert done.returncode == 1
        assert "train.py: error:" in done.stderr and str(solver) in done.stderr


def test_a_copied_train_script_names_what_it_misses(tmp_path):
    copy = tmp_path / "model1"
    shutil.copytree(PROTOTXT / "model1", copy)
    done = subprocess.run([copy / "train.sh"], capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert f"{copy}/solver.prototxt" in done.stderr


def test_a_variant_has_its_own_name_and_schedule(tool, tmp_path):
    out = tmp_path / "variants"
    settings = ["--set", "patience=3", "--set", "lr_schedule=cosine", "--classes", "10"]
    options = ["--name", "mine", *settings, "--out", out]
    tool("generate", "model8", *options)
    script = (out / "mine" / "train.sh").read_text()
    assert '"$here/solver.prototxt" --lr-schedule cosine --patience 3 "$@"' in script
    text = (out / "mine" / "train_val.prototxt").read_text()
    assert "num_output: 10" in text
    assert "tools/generate.py model8 --name mine --classes 10 --set patience=3 --set lr_schedule=cosine" in text
    tool("generate", "model8", *options, "--check")
    tool("generate", "model8", *options, "--crop", "48", "--check", fails=1)


@pytest.mark.parametrize(
    ("arguments", "status", "named"),
    [
        (["modle8"], 2, "'model8'"),
        (["model8", "--set", "btach=3"], 1, "'batch'"),
        (["model8", "--set", "batch"], 2, "FIELD=VALUE"),
        (["model8", "--classes", "10", "--set", "classes=20"], 2, "classes"),
        (["model8", "--classes", "many"], 2, "'many'"),
        (["model8", "--classes", "1"], 1, "classes"),
        (["--name", "mine"], 2, "--name"),
    ],
)
def test_bad_use_is_refused(arguments, status, named, tool, tmp_path):
    assert named in tool("generate", *arguments, "--out", tmp_path / "none", fails=status).stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", paper.PAPER)
def test_the_table_of_the_readme_is_true(name):
    model, published = zoo.MODELS[name], paper.PAPER[name]
    row = next(line for line in (PROTOTXT / "README.md").read_text().splitlines() if line.startswith(f"| {name} |"))
    cells = [cell.strip() for cell in row.replace("\\|", "!").strip("|").split("|")]
    assert [cells[0], *cells[2:]] == [
        name,
        " ".join(map(str, model.hidden)),
        model.activation,
        "yes" if model.drop_after_stage == 3 else "",
        "yes" if model.screened else "",
        str(model.depth),
        f"{published.parameters_millions:g}" if name == "model9" else f"{published.parameters_millions:.2f}",
        f"{model.parameters:,}",
    ]
    if name != "model9":  # written with x2 and x6 there
        assert cells[1].replace("!", "|") == model.convs
