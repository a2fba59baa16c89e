"""Upstream's tests of pycaffe, unchanged, with our module."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from conftest import ROOT

pytestmark = pytest.mark.slow

TESTS = ROOT / "build" / "caffe-source" / "python" / "caffe" / "test"


def test_upstreams_tests_pass(tmp_path):
    if not TESTS.is_dir():
        pytest.skip("no Caffe source in build/")
    if not shutil.which("dot"):
        pytest.skip("graphviz's dot is not installed")
    plugins = ["-p", "no:cacheprovider", "-p", "old_unittest"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, "-c", os.devnull, f"--rootdir={tmp_path}", "-q", str(TESTS)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests" / "upstream"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    summary = done.stdout.splitlines()[-1]
    assert int(re.search(r"(\d+) passed", summary)[1]) >= 52, summary
    assert not re.search("skipped|failed|error", summary), summary
