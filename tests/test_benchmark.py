"""tools/benchmark.py on tiny blobs: that the figures hang together, and what it says to wrong arguments. No timings."""

import json
import subprocess
import sys
from math import prod
from pathlib import Path

import pytest

from benchmarks import benchmark, benchmark_tables, timing
from tiny_imagenet.errors import BenchmarkError

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"

pytestmark = pytest.mark.skipif(not (BUILD / "caffe").is_file(), reason="no caffe program in build/: tools/setup.sh")


@pytest.fixture(scope="module")
def result(tool):
    return json.loads(tool("benchmark", "layers", "--quick", "--no-stock", "--threads", "1", "--json").stdout)


def test_every_case_is_there(result):
    cases = {(row["layer"], *row["shape"], row["in_place"], row["pass"]) for row in result["rectifiers"]}
    assert len(cases) == len(result["rectifiers"]) == 2 * 2 * 2 * 2
    assert {(row["records"], row["layer"], row["threads"]) for row in result["data"]} == {
        (records, layer, threads)
        for records in ("raw", "JPEG")
        for layer, threads in (("CropData", 1), ("CropData", None), ("Data", 1))
    }
    assert result["settings"]["threads"] == 1
    assert "--no-stock" in result["not_measured"]["stock"]


def test_shares_are_bytes_over_time_over_bandwidth(result):
    for name in ("best", "median"):
        copy = result["copy"]
        ms = min(way[name] for way in copy["ms"].values())
        assert copy["ms"][copy["best"][name]][name] == ms
        assert copy["bandwidth"][name] == pytest.approx(copy["bytes"] / (ms / 1000))
        for row in result["rectifiers"]:
            ours = row["measured"]["ours"]
            assert ours["share"][name] == pytest.approx(
                row["bytes"] / (ours["ms"][name] / 1000) / row["bandwidth"][name]
            )
            assert ours["ours_over_this"][name] == 1
            assert row["bandwidth"]["best"] <= copy["bandwidth"]["best"]
            assert 0 < ours["ms"]["best"] <= ours["ms"]["median"]


def test_bytes_count_the_arrays_that_a_pass_touches(result):
    for row in result["rectifiers"]:
        arrays = 3 if row["pass"] == "backward" or (row["layer"] == "PReLU" and row["in_place"]) else 2
        assert row["bytes"] == arrays * 4 * prod(row["shape"])


def test_rates_are_images_over_time(result):
    batch = result["settings"]["batch"]
    data = {row["records"]: row for row in result["data"] if row["layer"] == "Data"}
    for row in result["data"]:
        for name in ("best", "median"):
            assert row["images_per_second"][name] == pytest.approx(batch / (row["ms"][name] / 1000))
            assert row["images_per_core_second"][name] == pytest.approx(batch / (row["cpu_ms"][name] / 1000))
            assert row["times_data"][name] == pytest.approx(data[row["records"]]["cpu_ms"][name] / row["cpu_ms"][name])


def test_ratios_to_others_and_the_tables(result, capsys):
    found = {"ours": [1.0, 3.0, 2.0], "stock": [8.0, 4.0, 9.0], "torch": [2.0, 2.0, 5.0]}
    case = benchmark.Case("PReLU", (2, 3), True)
    row = benchmark._rectifier_row((case, "forward"), found, {"best": 1e6, "median": 5e5})
    assert row["measured"]["stock"]["ms"] == {"best": 4, "median": 8}
    assert row["measured"]["stock"]["ours_over_this"] == {"best": 0.25, "median": 0.25}
    assert row["measured"]["torch"]["ours_over_this"] == {"best": 0.5, "median": 1}
    assert row["measured"]["ours"]["share"] == pytest.approx({"best": 0.072, "median": 0.072})
    benchmark_tables.show({**result, "rectifiers": [row]})
    lines = capsys.readouterr().out.splitlines()
    table = next(line for line in lines if line.startswith("PReLU"))
    assert table.split()[:3] == ["PReLU", "2x3", "in"]
    assert table.split()[-2:] == ["0.25", "0.50"]
    assert "\x1b" not in "".join(lines)
    assert any(line.startswith("stock was not measured: left out with --no-stock") for line in lines)


def test_a_missing_torch_is_a_column_that_says_how_to_get_it(result):
    if timing.find_torch(None):
        pytest.skip("this Python has torch")
    assert "pip install torch" in result["not_measured"]["torch"]
    assert all(row["measured"]["torch"] is None for row in result["rectifiers"])


def test_wrong_arguments(tool, tmp_path):
    assert "layers" in tool("benchmark", "no_such_subject", fails=2).stderr
    missing = tmp_path / "python"
    assert str(missing) in tool("benchmark", "layers", "--torch", missing, fails=2).stderr
    tool("benchmark", "layers", "--rounds", "0", fails=2)
    # A Python of its own folder has no torch, whatever this one has.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    error = tool("benchmark", "layers", "--torch", tmp_path / "bare/bin/python", fails=2).stderr
    assert "No module named 'torch'" in error
    assert "pip install torch" in error
    error = tool("benchmark", "layers", "--no-stock", "--build", tmp_path, fails=1).stderr
    assert "tools/setup.sh" in error


def test_a_program_that_fails_is_named(tmp_path):
    with pytest.raises(BenchmarkError, match="Unknown layer type: NoSuchLayer"):
        timing.caffe_times(BUILD / "caffe", 'type: "NoSuchLayer"', (2, 3), False, 1, 1)


def test_a_torch_that_ends_early_is_an_error(tmp_path):
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\necho \'{"version": "0"}\'\nread line\necho "out of memory" >&2\n')
    fake.chmod(0o755)
    with timing.Torch(str(fake), 1) as torch, pytest.raises(BenchmarkError, match="out of memory"):
        torch.times("PReLU", (2, 3), False, 1)
