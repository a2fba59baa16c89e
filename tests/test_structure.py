"""The directions of the house: who imports whom, what the scripts promise, what the README lists."""

import ast
import graphlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "python" / "tiny_imagenet"
SCRIPTS = sorted(path for path in (ROOT / "tools").glob("*.py") if not path.name.startswith("_"))

# The packages, and which others each may import. The modules beside them are for all, and import each other alone.
MAY_IMPORT = {
    "models": set(),
    "data": set(),
    "parallel": set(),
    "evaluation": {"data", "models"},
    "training": {"data", "evaluation", "models", "parallel"},
    "experiment": {"data", "evaluation", "models", "training"},
    "cluster": {"data", "experiment"},
    "plots": {"data", "evaluation", "models"},
    "report": {"evaluation", "models", "plots"},
    "benchmarks": {"data", "models", "plots"},
}
THIRD_PARTY = {
    "caffe",
    "cv2",
    "dask",  # in the package cluster alone, as the next two
    "dask_jobqueue",
    "distributed",
    "google",  # protobuf
    "jinja2",
    "lmdb",
    "markupsafe",
    "matplotlib",
    "mpi4py",  # in launch alone, and only where a launcher has started several processes
    "numpy",
    "pydot",
    "rich",
    "scipy",
    "sklearn",
    "tensorboardX",
    "threadpoolctl",
    "torch",  # in torch_layers and torch_nets alone, which another Python runs
}
STANDARD_ALONE = {
    *("destination", "errors", "files", "linked_process", "outcomes", "runs", "stop"),
    *("models.zoo", "models.paper"),
    *("data.annotations", "data.catalogue", "data.safe_zip"),
    "evaluation.ahead",
    *("parallel.buckets", "parallel.mpi_mail", "parallel.mpi_operation", "parallel.mpi_watch", "parallel.rank_links"),
    "parallel.scaling",
    *("training.schedule", "training.supervisor"),
    *("experiment.graph", "experiment.reproduce", "experiment.table2"),
    *("cluster.claims", "cluster.schedulers", "cluster.step_process"),
    *("benchmarks.gpu_memory", "benchmarks.net_benchmark", "benchmarks.net_programs"),
}
NUMPY_ALONE = {
    *("data.lmdb_pages", "data.screening"),
    *("evaluation.ensemble", "evaluation.metrics", "evaluation.pedigree", "evaluation.predictions"),
}
WITH_CAFFE = {
    *("gpu", "models", "training"),  # all of a package, or a module
    *("evaluation.predict", "parallel.gpu_ranks", "parallel.ranks", "plots.weights_figure"),
    *("benchmarks.data_timing", "benchmarks.layer_work", "benchmarks.net_cases"),
}


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


def is_standard(name):
    """Whether a top-level module comes with this Python; one that is not installed at all does not."""
    if name in sys.builtin_module_names:
        return True
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:  # None: a namespace package
        return False
    if spec.origin in ("built-in", "frozen"):
        return True
    origin = Path(spec.origin).resolve()
    folders = [Path(sysconfig.get_path(key)).resolve() for key in ("stdlib", "platstdlib")]
    return any(
        folder in origin.parents and not {"site-packages", "dist-packages"} & set(origin.relative_to(folder).parts)
        for folder in folders
    )


def third_party(path):
    """The packages a file imports that are neither ours nor Python's."""
    names = {name.split(".")[0] for name in imports(path)}
    return {name for name in names if not (name == "tiny_imagenet" or is_standard(name))}


def named(path):
    """A module's name in the library: "cli", "data.datum"."""
    return ".".join(path.relative_to(LIBRARY).with_suffix("").parts)


def modules():
    return sorted(path for path in LIBRARY.rglob("*.py") if path.name != "__init__.py")


@pytest.mark.parametrize("path", modules(), ids=named)
def test_a_module_imports_only_what_it_may(path):
    name, package = named(path), named(path).rpartition(".")[0]
    others = {other.rpartition(".")[0] for other in own_imports(path)} - {"", package}
    assert others <= (MAY_IMPORT[package] if package else set())
    third = third_party(path)
    if name in STANDARD_ALONE:
        assert not third
    if name in NUMPY_ALONE:
        assert third <= {"numpy"}
    if name not in WITH_CAFFE and package not in WITH_CAFFE:
        assert "caffe" not in third
    if name not in ("benchmarks.torch_layers", "benchmarks.torch_nets"):
        assert "torch" not in third
    if name != "parallel.launch":
        assert "mpi4py" not in third
    if package != "cluster":
        assert not {"dask", "dask_jobqueue", "distributed"} & third


def test_no_modules_import_each_other():
    """Neither at their head nor later: there is an order in which each comes after what it imports."""
    names = {named(path) for path in modules()}
    order = graphlib.TopologicalSorter({named(path): own_imports(path) & names for path in modules()})
    assert set(order.static_order()) == names


def test_what_a_rule_names_is_there():
    names = {named(path) for path in modules()}
    assert set(MAY_IMPORT) == {path.parent.name for path in LIBRARY.glob("*/__init__.py")}
    assert names | set(MAY_IMPORT) >= STANDARD_ALONE | NUMPY_ALONE | WITH_CAFFE


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_lists_its_modules(package):
    _, text = ast.get_docstring(ast.parse((LIBRARY / package / "__init__.py").read_text())).split("\n\n")
    listed = re.findall(r"\w+", " ".join(re.findall(r"^([\w, ]+):", text, re.MULTILINE)))
    assert sorted(listed) == sorted(path.stem for path in modules() if path.parent.name == package)


def test_only_listed_packages_are_imported():
    files = [*LIBRARY.rglob("*.py"), *(ROOT / "tools").glob("*.py")]
    found = {str(path.relative_to(ROOT)): third_party(path) - {"_venv"} for path in files}
    assert {name: more - THIRD_PARTY for name, more in found.items() if more - THIRD_PARTY} == {}
    assert set().union(*found.values()) == THIRD_PARTY  # none is listed that nobody imports


def test_standard_modules_are_told_from_others(tmp_path):
    assert all(map(is_standard, ["__future__", "collections", "fcntl", "json", "math", "os", "sys", "time", "zlib"]))
    assert not any(map(is_standard, [*THIRD_PARTY - {"caffe"}, "pytest", "hypothesis", "no_such_package"]))
    (tmp_path / "new.py").write_text("import json, pytest\ndef f():\n    from no_such_package.part import x\n")
    assert third_party(tmp_path / "new.py") == {"pytest", "no_such_package"}


def test_scripts_do_not_import_each_other_and_the_library_not_them():
    names = {path.stem for path in SCRIPTS}
    for path in SCRIPTS:
        assert not names & imports(path), path
        own = {name for name in imports(path) if name.split(".")[0] == "caffe"}
        assert not own, path


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_shows_an_example(path):
    done = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True, check=True)
    assert "example:" in done.stdout
    assert f"tools/{path.name}" in done.stdout
    done = subprocess.run([sys.executable, path, "--no-such-flag"], capture_output=True, text=True)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_ctrl_c_is_one_line_while_a_script_still_loads(path, tmp_path):
    (tmp_path / "tiny_imagenet").mkdir()
    (tmp_path / "tiny_imagenet" / "__init__.py").write_text("raise KeyboardInterrupt\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-S", path, "--help"], capture_output=True, text=True, env=env)
    assert done.stderr == f"{path.name}: error: interrupted\n"
    assert done.returncode == -signal.SIGINT  # 130 in a shell


@pytest.mark.parametrize("name", ["setup.sh", "demo.sh", "test.sh", "fetch_caffe.sh"])
def test_a_shell_script_shows_help_and_refuses_what_it_does_not_know(name):
    script = ROOT / "tools" / name
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    assert f"tools/{name}" in done.stdout
    if name != "test.sh":  # its arguments are pytest's
        done = subprocess.run([script, "--no-such-flag"], capture_output=True, text=True)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1


def test_the_readme_lists_every_tool():
    readme = (ROOT / "README.md").read_text()
    for path in [*SCRIPTS, *sorted((ROOT / "tools").glob("*.sh"))]:
        assert path.name in readme, path.name
    for name in [*MAY_IMPORT, *(path.stem for path in LIBRARY.glob("*.py") if path.stem != "__init__")]:
        assert name in readme, name


def test_every_train_script_hands_over_to_the_trainer():
    for script in sorted((ROOT / "prototxt").glob("model*/train.sh")):
        done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True, cwd="/")
        assert "train.py" in done.stdout
