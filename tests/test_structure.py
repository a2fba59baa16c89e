"""The directions of the house: who imports whom, what the scripts promise, what the README lists."""

import ast
import importlib.util
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "python" / "tiny_imagenet"
SCRIPTS = sorted(path for path in (ROOT / "tools").glob("*.py") if not path.name.startswith("_"))

BASE = {"errors", "files", "cli", "destination"}  # for everyone
MAY_IMPORT = {
    "zoo": set(),
    "paper": set(),
    "runs": set(),
    "predictions": set(),
    "screening": set(),
    "datum": {"image_files"},
    "annotations": set(),
    "image_files": set(),
    "lmdb_pages": set(),
    "pool": {"catalogue", "dataset", "loading"},
    "catalogue": {"annotations"},
    "dataset": {"annotations", "catalogue", "image_files", "screening"},
    "loading": {"catalogue", "dataset", "datum", "image_files", "screening"},
    "lmdb_writer": set(),
    "verify": {"datum", "lmdb_reader"},
    "safe_zip": set(),
    "download": {"safe_zip"},
    "lmdb_reader": {"datum", "lmdb_pages"},
    "sample": {"dataset", "screening"},
    "convert": {
        *("annotations", "catalogue", "cluster_pool", "dataset", "datum", "lmdb_reader", "lmdb_writer", "loading"),
        *("pool", "screening"),
    },
    "metrics": {"predictions"},
    "pedigree": {"predictions", "runs"},
    "ensemble": {"metrics", "pedigree", "predictions"},
    "prototxt": set(),
    "nets": {"prototxt", "zoo"},
    "solvers": {"nets", "prototxt", "zoo"},
    "stand_in": set(),
    "outline": {"stand_in"},
    "describe": {"outline", "paper", "prototxt", "solvers"},
    "drawing": {"describe", "outline", "stand_in"},
    "canonical": set(),
    "net_diff": {"canonical"},
    "findings": {"outline"},
    "agreement": {"canonical", "findings", "net_diff", "outline"},
    "solver_soundness": {"describe", "findings", "solvers"},
    "soundness": {
        *("agreement", "canonical", "describe", "findings", "outline", "prototxt", "solver_soundness", "solvers"),
        "stand_in",
    },
    "stock": {"canonical"},
    "generate": {"nets", "solvers", "zoo"},
    "fit": {"agreement", "datum", "findings", "lmdb_reader", "nets", "outline", "solvers"},
    "ahead": set(),
    "predict": {"ahead", "datum", "gpu", "lmdb_reader", "nets", "predictions"},
    "photos": {"dataset", "image_files"},
    "origin": {"lmdb_reader", "pedigree", "predictions", "runs"},
    "classify": {"ahead", "annotations", "dataset", "lmdb_reader", "origin", "photos", "predict", "runs"},
    "submission": {"lmdb_reader", "predictions"},
    "members": {"evaluate", "lmdb_reader", "pedigree", "predictions", "runs"},
    "evaluate": {"lmdb_reader", "metrics", "nets", "origin", "pedigree", "predict", "predictions", "runs"},
    "schedule": set(),
    "stop": set(),
    "console": set(),
    "events": set(),
    "snapshots": set(),
    "provenance": set(),
    "gpu": set(),
    "ranks": set(),
    "rank_links": {"ranks"},
    "gpu_ranks": {"rank_links", "ranks"},
    "launch": set(),
    "buckets": set(),
    "scaling": {"buckets"},
    "mpi_watch": set(),
    "mpi_operation": set(),
    "mpi_thread": {"launch", "mpi_operation", "mpi_watch"},
    "mpi_ranks": {"buckets", "gpu_ranks", "mpi_operation", "mpi_thread", "ranks"},
    "accord": {"jobs", "lmdb_reader"},
    "mpi_train": {"accord", "console", "ending", "gpu", "jobs", "launch", "mpi_ranks", "mpi_thread", "runs"},
    "validation": {"ahead", "lmdb_reader", "predict", "predictions", "ranks"},
    "solving": {"nets", "ranks", "runs", "solvers"},
    "follower": {"gpu", "predict", "ranks", "snapshots", "solving", "validation"},
    "trainer": {
        *("console", "events", "fit", "follower", "metrics", "predict", "predictions", "ranks", "runs", "schedule"),
        *("snapshots", "solving", "stop", "validation"),
    },
    "jobs": {"fit", "gpu", "lmdb_reader", "nets", "outline", "provenance", "runs", "schedule", "trainer", "zoo"},
    "outcomes": set(),
    "ending": {"console", "runs"},
    "supervisor": {"console", "ending", "jobs", "outcomes", "stop"},
    "train": {
        *("console", "fit", "follower", "gpu", "jobs", "launch", "mpi_train", "nets", "predict", "ranks", "runs"),
        *("snapshots", "solving", "stop", "supervisor", "trainer"),
    },
    "rank_main": {"outcomes", "supervisor", "train"},
    "table2": {"paper"},
    "graph": {"stop"},
    "reproduce": {
        *("ensemble", "evaluate", "graph", "jobs", "lmdb_reader", "metrics", "paper", "predictions", "runs", "stop"),
        *("table2", "train", "zoo"),
    },
    "schedulers": set(),
    "claims": set(),
    "step_process": {"outcomes", "stop"},
    "cluster_worker": {"catalogue", "claims", "dataset", "loading", "outcomes", "runs", "step_process"},
    "cluster": {"cluster_worker", "pool"},
    "cluster_graph": {"claims", "cluster", "cluster_worker", "graph", "outcomes", "runs", "stop"},
    "cluster_pool": {"catalogue", "cluster", "cluster_worker", "loading"},
    "figures": set(),
    "screening_figure": {"dataset", "figures", "screening"},
    "features": {"lmdb_reader", "nets", "predict"},
    "tsne_figure": {"evaluate", "features", "figures", "lmdb_reader", "predict", "runs"},
    "curves_figure": {"figures"},
    "confusion_figure": {"figures", "metrics", "origin", "pedigree", "predictions"},
    "errors_figure": {"figures", "lmdb_reader", "metrics", "origin", "pedigree", "predictions"},
    "weights_figure": {"figures", "nets", "predict", "runs"},
    "report": {
        *("paper", "pedigree", "report_curves", "report_ensembles", "report_nets", "report_predictions"),
        *("curves_figure", "report_results", "report_runs", "report_scores"),
    },
    "report_values": set(),
    "report_runs": {"pedigree", "report_values", "runs"},
    "report_scores": {"paper", "pedigree", "report_values"},
    "report_ensembles": {"paper", "pedigree", "report_scores", "report_values"},
    "report_results": {"pedigree", "report_scores"},
    "report_curves": {"curves_figure", "figures", "report_values"},
    "report_predictions": {
        *("confusion_figure", "metrics", "origin", "pedigree", "predictions", "report_curves", "report_gallery"),
        *("report_results", "report_runs", "report_scores", "report_values"),
    },
    "report_gallery": {"errors_figure", "origin", "predictions"},
    "report_nets": {"describe", "drawing", "outline", "report_values"},
    "timing": set(),
    "torch_layers": set(),
    "data_timing": {"datum"},
    "benchmark": {"data_timing", "timing"},
    "benchmark_tables": {"benchmark"},
    "gpu_memory": set(),
    "torch_nets": set(),
    "net_cases": {"nets", "outline", "solvers", "stock"},
    "net_programs": {"timing"},
    "net_progress": set(),
    "net_benchmark": {"gpu_memory", "net_programs", "timing"},
    "net_tables": set(),
    "net_figure": {"figures"},
    "layer_work": {"outline"},
    "layer_shares": {"layer_work", "net_programs", "timing"},
    "layer_tables": set(),
}
THIRD_PARTY = {
    "caffe",
    "cv2",
    "dask",  # in cluster alone, as the next two
    "dask_jobqueue",
    "distributed",  # and in cluster_graph, cluster_pool and cluster_worker
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
    "ahead",
    "zoo",
    "paper",
    "runs",
    "schedule",
    "stop",
    "annotations",
    "catalogue",
    "safe_zip",
    "reproduce",
    "table2",
    "graph",
    "schedulers",
    "claims",
    "step_process",
    "outcomes",
    "rank_links",
    "supervisor",
    "buckets",
    "scaling",
    "mpi_watch",
    "mpi_operation",
    "gpu_memory",
    "net_benchmark",
    "net_programs",
}
NUMPY_ALONE = {"lmdb_pages", "metrics", "ensemble", "screening", "predictions", "pedigree"}
WITH_CAFFE = {
    *("data_timing", "nets", "solvers", "fit", "train", "predict", "generate"),
    *("prototxt", "stand_in", "outline", "describe", "canonical", "net_diff", "stock"),
    *("findings", "agreement", "solver_soundness", "soundness"),
    *("provenance", "snapshots", "trainer", "weights_figure"),
    *("gpu", "ranks", "gpu_ranks", "solving", "follower", "rank_main", "net_cases", "layer_work"),
    *("accord", "mpi_train"),
}


def imports(path):
    """The modules a file imports, wherever in it: full names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= set(names) if node.module == "tiny_imagenet" else {node.module or ""}
    return found


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


def modules():
    return sorted(path for path in LIBRARY.glob("*.py") if path.stem != "__init__" and path.stem not in BASE)


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.stem)
def test_a_module_imports_only_what_it_may(path):
    own = {name.split(".")[1] for name in imports(path) if name.startswith("tiny_imagenet.")}
    assert own - BASE <= MAY_IMPORT[path.stem]
    third = third_party(path)
    if path.stem in STANDARD_ALONE:
        assert not third
    if path.stem in NUMPY_ALONE:
        assert third <= {"numpy"}
    if path.stem not in WITH_CAFFE:
        assert "caffe" not in third
    if path.stem not in ("torch_layers", "torch_nets"):
        assert "torch" not in third
    if path.stem != "launch":
        assert "mpi4py" not in third


def test_only_listed_packages_are_imported():
    files = [*LIBRARY.glob("*.py"), *(ROOT / "tools").glob("*.py")]
    found = {str(path.relative_to(ROOT)): third_party(path) - {"_venv"} for path in files}
    assert {name: more - THIRD_PARTY for name, more in found.items() if more - THIRD_PARTY} == {}
    assert set().union(*found.values()) == THIRD_PARTY  # none is listed that nobody imports


def test_standard_modules_are_told_from_others(tmp_path):
    assert all(map(is_standard, ["__future__", "collections", "fcntl", "json", "math", "os", "sys", "time", "zlib"]))
    assert not any(map(is_standard, [*THIRD_PARTY - {"caffe"}, "pytest", "hypothesis", "no_such_package"]))
    (tmp_path / "new.py").write_text("import json, pytest\ndef f():\n    from no_such_package.part import x\n")
    assert third_party(tmp_path / "new.py") == {"pytest", "no_such_package"}


def test_the_arrows_name_no_module_that_is_gone():
    assert set(MAY_IMPORT) == {path.stem for path in modules()}


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
    for path in modules():
        assert path.stem in readme, path.stem


def test_every_train_script_hands_over_to_the_trainer():
    for script in sorted((ROOT / "prototxt").glob("model*/train.sh")):
        done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True, cwd="/")
        assert "train.py" in done.stdout
