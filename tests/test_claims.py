"""Who has a run of an experiment that several machines share."""

import json

import pytest

from conftest import wait_for
from tiny_imagenet.errors import ClusterError
from tiny_imagenet.experiment import claims
from tiny_imagenet.experiment.claims import Claim, Experiment, Life

ABOUT = {"step": "train model1, seed 1", "worker": "tcp://a:1", "host": "a"}


class Clock:
    """The time as `claims` sees it: it passes where somebody sleeps, and where a test says so."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 0.02)
    monkeypatch.setattr(claims, "time", Clock())
    return claims.time


def test_a_claim_is_given_back(tmp_path, clock):
    with Experiment(tmp_path) as experiment:
        claim = Claim(experiment.folder, "model1-seed1", ABOUT)
        claim.take()
        assert clock.now == 1000  # nobody had it
        [found] = experiment.claims().values()
        assert {name: found[name] for name in ABOUT} == ABOUT and found["begun"] == 1
        assert not claim.lost()
        claim.release()
        assert experiment.claims() == {}
        assert not claim.lost()


def test_the_newest_claim_counts(tmp_path, clock):
    """Also where there are no locks: whoever had it finds out, and has the time to end."""
    with Experiment(tmp_path) as experiment:
        old = Claim(experiment.folder, "model1-seed1", ABOUT)
        old.take()
        new = Claim(experiment.folder, "model1-seed1", {**ABOUT, "host": "b"})
        new.take()
        assert clock.now == 1000 + claims.SETTLE
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


def test_a_worker_sees_what_becomes_of_the_experiment(tmp_path, clock):
    with Experiment(tmp_path) as experiment:
        life = Life(experiment.folder, experiment.token)
        assert life.over() == ""
        assert Life(experiment.folder, "other").over() == "another experiment has begun in its place"
        file = experiment.folder / "experiment.json"
        for _ in range(3):  # it goes on as long as it is heard
            heard = file.read_text()
            wait_for(lambda heard=heard: file.read_text() != heard)
            clock.sleep(0.7 * claims.MISSED)
            assert life.over() == ""
        experiment.stop("SIGTERM")
        assert life.over() == "stopped by SIGTERM"
    assert life.over() == "the experiment has ended"


def test_an_experiment_that_is_killed_is_missed(tmp_path, clock):
    with Experiment(tmp_path) as experiment:
        text = (experiment.folder / "experiment.json").read_text()
    life = Life(experiment.folder, experiment.token)
    experiment.folder.mkdir()
    (experiment.folder / "experiment.json").write_text(text)
    assert life.over() == ""
    clock.sleep(claims.MISSED)
    assert life.over() == ""
    clock.sleep(1)
    assert life.over() == "nothing has been heard from the experiment for 60 seconds"


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
