import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tiny_imagenet.errors import NetError
from tiny_imagenet.models import generate, paper, zoo

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
    assert generate.write([model], tmp_path, TOOLS, f"--out {tmp_path.name}", force=True)
    solver.write_bytes(mine)
    for arguments in ([], ["--check"]):
        done = tool("generate", "model1", "--out", tmp_path, *arguments, fails=1)
        assert len(done.stderr.splitlines()) == 1 and "solver.prototxt" in done.stderr
    assert solver.read_bytes() == mine
    assert len(generate.write([model], tmp_path, TOOLS, force=True)) == 3
    assert generate.differing(model, tmp_path, TOOLS) == []


def test_an_older_generated_file_is_brought_up_to_date(tmp_path):
    generate.write([zoo.MODELS["model1"]], tmp_path, TOOLS)
    changed = generate.write([zoo.MODELS["model1"].replace(base_lr=0.5)], tmp_path, TOOLS)
    assert [path.name for path in changed] == ["train_val.prototxt", "deploy.prototxt", "solver.prototxt"]
    assert "base_lr: 0.5" in changed[-1].read_text()
    assert "after column 1 of Table 1" in changed[-1].read_text()  # it is no longer that column


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


def test_a_file_saved_with_other_line_ends_or_a_link_to_nowhere_is_an_edit(tmp_path):
    row = zoo.MODELS["model1"]
    generate.write([row], tmp_path, TOOLS)
    solver = tmp_path / "model1" / "solver.prototxt"
    solver.write_bytes(solver.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(NetError, match="edited by hand"):
        generate.write([row], tmp_path, TOOLS)
    solver.unlink()
    solver.symlink_to("nowhere")
    with pytest.raises(NetError, match="edited by hand"):
        generate.write([row], tmp_path, TOOLS)
    # a link to a file of the generator's stays one
    solver.unlink()
    generate.write([row], tmp_path, TOOLS)
    elsewhere = solver.rename(tmp_path / "elsewhere.prototxt")
    solver.symlink_to(elsewhere)
    generate.write([row.replace(base_lr=0.5)], tmp_path, TOOLS)
    assert solver.is_symlink() and "base_lr: 0.5" in elsewhere.read_text()


def test_stages_that_a_model_no_longer_has_go(tmp_path):
    row = zoo.MODELS["model9"]
    generate.write([row], tmp_path, TOOLS)
    alone = row.replace(shallow=())
    assert tmp_path / "model9" / "stages" / "1" / "solver.prototxt" in generate.differing(alone, tmp_path, TOOLS)
    edited = tmp_path / "model9" / "stages" / "1" / "deploy.prototxt"
    text = edited.read_text()
    edited.write_text(text + "# mine")
    with pytest.raises(NetError, match="deploy.prototxt was edited by hand"):
        generate.write([alone], tmp_path, TOOLS)
    edited.write_text(text)
    generate.write([alone], tmp_path, TOOLS)
    assert not (tmp_path / "model9" / "stages").exists()
    assert generate.differing(alone, tmp_path, TOOLS) == []


def test_a_variant_has_a_name_and_its_schedule(tool, tmp_path):
    out = tmp_path / "variants"
    options = ["--name", "mine", "--set", "patience=3", "--set", "lr_factor=0.5", "--out", out]
    tool("generate", "model8", *options)
    script = (out / "mine" / "train.sh").read_text()
    assert '"$here/solver.prototxt" --lr-factor 0.5 --patience 3 "$@"' in script
    head = (out / "mine" / "train_val.prototxt").read_text().splitlines()[:5]
    assert head[0].startswith("# Model 8 (mine) of Tiny ImageNet") and "after column 8" in head[0]
    assert "i, i2, k, l" in head[2]
    assert "tools/generate.py model8 --name mine --set patience=3 --set lr_factor=0.5 --out variants." in head[3]
    tool("generate", "model8", *options, "--check")
    tool("generate", "model8", "--classes", "10", "--set", "classes=20", "--out", out, fails=2)
    tool("generate", "--name", "mine", "--out", out, fails=2)
    tool("generate", "model1", "--out", tmp_path / "a\nb", fails=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["variants"]


def test_a_train_script_is_called_through_a_link_and_says_what_a_copy_lacks(tmp_path):
    (tmp_path / "link.sh").symlink_to(PROTOTXT / "model1" / "train.sh")
    done = subprocess.run([tmp_path / "link.sh", "--help"], capture_output=True, text=True, check=True)
    assert "train.py" in done.stdout
    copy = tmp_path / "model1"
    shutil.copytree(PROTOTXT / "model1", copy)
    done = subprocess.run([copy / "train.sh"], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"call tools/train.py of a checkout with {copy}/solver.prototxt" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", paper.PAPER)
def test_the_readme_s_table_is_true(name):
    model, column = zoo.MODELS[name], paper.PAPER[name]
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
    assert f"Generated by tools/generate.py model2 --classes 10 --out {tmp_path.name}." in text
    assert "num_output: 10" in text
    tool("generate", "model2", "--classes", "10", "--out", tmp_path, "--check")
    assert "is not what" in tool("generate", "model2", "--out", tmp_path, "--check", fails=1).stderr
    assert "model12" in tool("generate", "model12", "--out", tmp_path, fails=2).stderr
    tool("generate", "model2", "--classes", "1", "--out", tmp_path / "none", fails=1)
    tool("generate", "--classes", "many", fails=2)
    assert not (tmp_path / "none").exists()
