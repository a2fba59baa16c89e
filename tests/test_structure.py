"""Import directions, package docstrings, and the common behaviour of the scripts."""

import ast
import graphlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "python" / "tiny_imagenet"
SCRIPTS = sorted(path for path in (ROOT / "tools").glob("*.py") if not path.name.startswith("_"))

# The packages, and which others each may import. Modules outside packages are for all of them.
MAY_IMPORT = {
    "models": set(),
    "data": set(),
    "inspect": {"models"},
    "export": {"inspect", "models"},
    "evaluation": {"data", "models"},
    "training": {"data", "evaluation", "inspect", "models"},
    "report": {"data", "evaluation", "inspect", "models"},
    "experiment": {"data", "evaluation", "models", "training"},
}
# Optional packages, and the only places that may import them.
OPTIONAL = {"mpi4py": "training", "dask": "experiment", "dask_jobqueue": "experiment", "distributed": "experiment"}


def imports(path):
    """The modules a file imports, wherever in it: full names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if (node.module or "").split(".")[0] == "tiny_imagenet" else {node.module or ""}
    return found


def own_imports(path):
    """Those of the library, as in `named`; "" is the package itself."""
    names = [name.split(".")[1:] for name in imports(path) if name.startswith("tiny_imagenet.")]
    return {".".join(name[: 2 if name[0] in MAY_IMPORT else 1]) if name[0] != "__version__" else "" for name in names}


def named(path):
    """A module's name in the library: "cli", "data.datum"."""
    return ".".join(path.relative_to(LIBRARY).with_suffix("").parts)


def modules():
    return sorted(path for path in LIBRARY.rglob("*.py") if path.name != "__init__.py")


@pytest.mark.parametrize("path", modules(), ids=named)
def test_a_module_imports_only_what_it_may(path):
    package = named(path).rpartition(".")[0]
    others = {other.rpartition(".")[0] for other in own_imports(path)} - {"", package}
    assert others <= (MAY_IMPORT[package] if package else set())
    optional = {name.split(".")[0] for name in imports(path)} & set(OPTIONAL)
    assert {OPTIONAL[name] for name in optional} <= {package}


def test_no_modules_import_each_other():
    """Imports within functions count too: there is an order without cycles."""
    names = {named(path) for path in modules()}
    order = graphlib.TopologicalSorter({named(path): own_imports(path) & names for path in modules()})
    assert set(order.static_order()) == names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_lists_its_modules(package):
    _, text = ast.get_docstring(ast.parse((LIBRARY / package / "__init__.py").read_text())).split("\n\n")
    listed = re.findall(r"\w+", " ".join(re.findall(r"^([\w, ]+):", text, re.MULTILINE)))
    assert sorted(listed) == sorted(path.stem for path in modules() if path.parent.name == package)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_shows_an_example(path):
    done = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True, check=True)
    assert "example:" in done.stdout
    assert f"tools/{path.name}" in done.stdout
    done = subprocess.run([sys.executable, path, "--no-such-flag"], capture_output=True, text=True)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_ctrl_c_while_a_script_loads_is_one_line(tmp_path):
    (tmp_path / "tools").mkdir()
    (tmp_path / "python" / "tiny_imagenet").mkdir(parents=True)
    (tmp_path / "python" / "tiny_imagenet" / "__init__.py").write_text("raise KeyboardInterrupt\n")
    for name in ("_venv.py", "describe.py"):
        (tmp_path / "tools" / name).write_bytes((ROOT / "tools" / name).read_bytes())
    command = [sys.executable, tmp_path / "tools" / "describe.py", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == "describe.py: error: interrupted\n"
    assert done.returncode == -signal.SIGINT  # 130 in a shell


def test_two_checkouts_each_run_their_own_code(tmp_path):
    """Whichever Python runs a script, the package is that of the script's checkout."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "python" / "tiny_imagenet").mkdir(parents=True)
    (tmp_path / "python" / "tiny_imagenet" / "__init__.py").write_text("")
    (tmp_path / "tools" / "_venv.py").write_bytes((ROOT / "tools" / "_venv.py").read_bytes())
    script = "import sys, _venv, tiny_imagenet\nprint(sys.prefix, tiny_imagenet.__file__)\n"
    (tmp_path / "tools" / "where.py").write_text(script)
    run = [sys.executable, tmp_path / "tools" / "where.py"]
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(run, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == [sys.prefix, str(tmp_path / "python" / "tiny_imagenet" / "__init__.py")]
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / ".venv"], check=True)
    done = subprocess.run(run, capture_output=True, text=True, env=environment)
    assert done.returncode == 1  # its .venv has no caffe
    assert done.stderr == "where.py: error: this checkout is not set up: run tools/setup.sh first\n"


@pytest.mark.parametrize("name", ["setup.sh", "demo.sh", "test.sh", "fetch_caffe.sh"])
def test_a_shell_script_shows_help_and_refuses_what_it_does_not_know(name):
    script = ROOT / "tools" / name
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    assert f"tools/{name}" in done.stdout
    if name != "test.sh":  # its arguments are pytest's
        done = subprocess.run([script, "--no-such-flag"], capture_output=True, text=True)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1


def test_every_train_script_hands_over_to_the_trainer():
    for script in sorted((ROOT / "prototxt").glob("model*/train.sh")):
        done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True, cwd="/")
        assert "train.py" in done.stdout
