import os
import re
import subprocess
from pathlib import Path

import pytest

from tiny_imagenet import generate, paper, zoo
from tiny_imagenet.errors import NetError

TOOLS = Path(__file__).resolve().parent.parent / "tools"
PROTOTXT = TOOLS.parent / "prototxt"


@pytest.mark.parametrize("name", zoo.MODELS)
def test_the_committed_files_are_what_the_code_makes(name):
    assert generate.differing(zoo.MODELS[name], PROTOTXT, TOOLS) == []
    assert os.access(PROTOTXT / name / "train.sh", os.X_OK)


def test_a_hand_edited_file_is_kept_unless_forced(tmp_path):
    model = zoo.MODELS["model1"]
    assert len(generate.write([model], tmp_path, TOOLS)) == 4
    assert generate.write([model], tmp_path, TOOLS) == []
    solver = tmp_path / "model1" / "solver.prototxt"
    mine = solver.read_text().replace("base_lr: 0.01", "base_lr: 0.005")
    assert mine != solver.read_text()
    solver.write_text(mine)
    assert generate.is_edited(mine)
    with pytest.raises(NetError, match=r"solver\.prototxt was edited by hand.*--force"):
        generate.write([model], tmp_path, TOOLS)
    assert solver.read_text() == mine
    assert generate.write([model], tmp_path, TOOLS, force=True) == [solver]
    assert not generate.is_edited(solver.read_text())


def test_a_file_that_is_not_utf_8_counts_as_edited(tmp_path, tool):
    model = zoo.MODELS["model1"]
    generate.write([model], tmp_path, TOOLS)
    solver = tmp_path / "model1" / "solver.prototxt"
    mine = solver.read_bytes().replace(b"\n", b" caf\xe9\n", 1)  # even where the digest does not cover
    solver.write_bytes(mine)
    assert generate.differing(model, tmp_path, TOOLS) == [solver]
    with pytest.raises(NetError, match=r"solver\.prototxt was edited by hand.*--force"):
        generate.write([model], tmp_path, TOOLS)
    for arguments in ([], ["--check"]):
        done = tool("generate", "model1", "--out", tmp_path, *arguments, fails=1)
        assert len(done.stderr.splitlines()) == 1 and "solver.prototxt" in done.stderr
    assert solver.read_bytes() == mine
    assert generate.write([model], tmp_path, TOOLS, force=True) == [solver]
    assert generate.differing(model, tmp_path, TOOLS) == []


def test_an_older_generated_file_is_brought_up_to_date(tmp_path):
    generate.write([zoo.MODELS["model1"]], tmp_path, TOOLS)
    changed = generate.write([zoo.MODELS["model1"].replace(base_lr=0.5)], tmp_path, TOOLS)
    assert [path.name for path in changed] == ["solver.prototxt"]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("solver.prototxt", "# Model 1 of", "# My Model 1 of"),  # a comment
        ("deploy.prototxt", "# digest: ", "# digest: f"),
        ("train_val.prototxt", "# digest: ", "# my note\n# was: "),
        ("train.sh", '"$@"', '--base-lr 0.005 "$@"'),
        ("train.sh", "# Train model1", "# Train my model1"),
    ],
)
def test_an_edit_of_any_line_is_kept_and_nothing_else_is_written(file, old, new, tmp_path):
    row = zoo.MODELS["model1"]
    generate.write([row], tmp_path, TOOLS)
    path = tmp_path / "model1" / file
    mine = path.read_text().replace(old, new)
    assert mine != path.read_text()
    path.write_text(mine)
    with pytest.raises(NetError, match=rf"{re.escape(file)} was edited by hand.*--force"):
        generate.write([zoo.MODELS["model2"], row], tmp_path, TOOLS)
    assert not (tmp_path / "model2").exists()
    assert path.read_text() == mine
    assert path in generate.write([zoo.MODELS["model2"], row], tmp_path, TOOLS, force=True)
    assert generate.differing(row, tmp_path, TOOLS) == []


def test_a_train_script_hands_its_own_solver_to_the_trainer(tmp_path):
    """Also one that was made outside the checkout, in a folder with a space; from anywhere."""
    folder = tmp_path / "my nets"
    generate.write([zoo.MODELS["model1"].replace(classes=7)], folder, TOOLS)
    script = folder / "model1" / "train.sh"
    command = [script, "--data", tmp_path / "nowhere", "--run", tmp_path / "run"]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert done.returncode == 1
    assert f"{tmp_path / 'nowhere'}" in done.stderr and "train.py: error:" in done.stderr
    moved = folder / "model1" / "solver.prototxt"
    moved.write_text(moved.read_text().replace("my nets/model1/", "elsewhere/"))
    (folder / "model1" / "train_val.prototxt").unlink()
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert f"{moved} names the net elsewhere/train_val.prototxt" in done.stderr


@pytest.mark.parametrize("name", zoo.MODELS)
def test_the_readme_s_table_is_true(name):
    model, column = zoo.MODELS[name], paper.MODELS[name]
    row = next(line for line in (PROTOTXT / "README.md").read_text().splitlines() if line.startswith(f"| {name} |"))
    cells = [cell.strip() for cell in row.replace("\\|", "!").strip("|").split("|")]
    expected = [
        name,
        " ".join(map(str, model.hidden)),
        model.activation,
        "yes" if model.drop_after_stage == 3 else "",
        "yes" if model.screened else "",
        str(model.depth),
        f"{column.parameters_millions:g}" if name == "model9" else f"{column.parameters_millions:.2f}",
        f"{model.parameters:,}",
    ]
    assert [cells[0], *cells[2:]] == expected
    if name != "model9":  # written with x2 and x6 there
        assert cells[1].replace("!", "|") == model.convs


def test_the_script(tool, tmp_path):
    tool("generate", "model2", "--classes", "10", "--out", tmp_path)
    text = (tmp_path / "model2" / "train_val.prototxt").read_text()
    assert "Made by tools/generate.py model2 --classes 10." in text
    assert "num_output: 10" in text
    tool("generate", "model2", "--classes", "10", "--out", tmp_path, "--check")
    assert "is not what" in tool("generate", "model2", "--out", tmp_path, "--check", fails=1).stderr
    assert "model12" in tool("generate", "model12", "--out", tmp_path, fails=1).stderr
    tool("generate", "model2", "--classes", "1", "--out", tmp_path / "none", fails=1)
    tool("generate", "--classes", "many", fails=2)
    assert not (tmp_path / "none").exists()
