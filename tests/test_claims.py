"""Who has a run of an experiment that several machines share."""

import json
import time

import pytest

from tiny_imagenet.cluster import claims
from tiny_imagenet.cluster.claims import Claim, Experiment, Life
from tiny_imagenet.errors import ClusterError

ABOUT = {"step": "train model1, seed 1", "worker": "tcp://a:1", "host": "a"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(claims, "SETTLE", 0.2)
    monkeypatch.setattr(claims, "BEAT", 0.1)


def test_a_claim_is_given_back(tmp_path):
    with Experiment(tmp_path) as experiment:
        claim = Claim(experiment.folder, "model1-seed1", ABOUT)
        start = time.monotonic()
        claim.take()
        assert time.monotonic() - start < 0.15  # nobody had it
        [found] = experiment.claims().values()
        assert {name: found[name] for name in ABOUT} == ABOUT and found["begun"] == 1
        assert not claim.lost()
        claim.release()
        assert experiment.claims() == {}
        assert not claim.lost()


def test_the_newest_claim_counts(tmp_path):
    """Also where there are no locks: whoever had it finds out, and has the time to end."""
    with Experiment(tmp_path) as experiment:
        old = Claim(experiment.folder, "model1-seed1", ABOUT)
        old.take()
        new = Claim(experiment.folder, "model1-seed1", {**ABOUT, "host": "b"})
        start = time.monotonic()
        new.take()
        assert time.monotonic() - start > 0.2
        assert old.lost() and not new.lost()
        old.release()  # which is not its own any more
        [found] = experiment.claims().values()
        assert found["host"] == "b" and found["begun"] == 2
        other = Claim(experiment.folder, "model1-seed2", ABOUT)
        other.take()
        assert not new.lost() and not other.lost()
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_read_at_this_moment_ends_nothing(tmp_path):
    with Experiment(tmp_path) as experiment:
        claim, life = Claim(experiment.folder, "model1-seed1", ABOUT), Life(experiment.folder, experiment.token)
        claim.take()
        (experiment.folder / "model1-seed1.claim").write_text('{"tok')
        assert not claim.lost() and experiment.claims() == {}
        (experiment.folder / "experiment.json").write_text("")
        assert not life.over()


def test_a_worker_sees_what_becomes_of_the_experiment(tmp_path, monkeypatch):
    with Experiment(tmp_path) as experiment:
        life = Life(experiment.folder, experiment.token)
        assert life.over() == ""
        assert Life(experiment.folder, "other").over() == "another experiment has begun in its place"
        monkeypatch.setattr(claims, "MISSED", 0.5)
        until = time.monotonic() + 1
        while time.monotonic() < until:  # it goes on as long as it is heard
            assert life.over() == ""
            time.sleep(0.05)
        experiment.stop("SIGTERM")
        assert life.over() == "stopped by SIGTERM"
    assert life.over() == "the experiment has ended"


def test_an_experiment_that_is_killed_is_missed(tmp_path, monkeypatch):
    with Experiment(tmp_path) as experiment:
        text = (experiment.folder / "experiment.json").read_text()
    life = Life(experiment.folder, experiment.token)
    experiment.folder.mkdir()
    (experiment.folder / "experiment.json").write_text(text)
    assert life.over() == ""
    monkeypatch.setattr(claims, "MISSED", 0.0)
    assert life.over() == "nothing has been heard from the experiment for 0 seconds"


def test_two_experiments_in_one_folder(tmp_path):
    with Experiment(tmp_path) as first:
        with pytest.raises(ClusterError, match="is in use by another experiment"), Experiment(tmp_path):
            pass
        assert json.loads((first.folder / "experiment.json").read_text())["token"] == first.token
    with Experiment(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "out").write_text("in the way")
    with (
        pytest.raises(ClusterError, match=r"cannot make .*out/\.cluster: Not a directory"),
        Experiment(tmp_path / "out"),
    ):
        pass
