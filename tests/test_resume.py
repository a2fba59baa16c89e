"""Runs that are stopped, killed or fail, and resume: the result is the same to the byte."""

import dataclasses
import errno
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import caffe
import numpy as np
import pytest

from conftest import ROOT, StopAfter, interruptible, wait_for
from tiny_imagenet import runs
from tiny_imagenet.errors import DatasetError, NetError, RunError, Stopped
from tiny_imagenet.models import generate, zoo
from tiny_imagenet.runs import Run
from tiny_imagenet.training import schedule, solving, train
from tiny_imagenet.training.options import Options

# Convolutions, dropout and CropData as in the zoo's models, in a net that trains in a moment.
ROW = zoo.MODELS["model6"].replace(
    convs="3-4 3-4 | 3-4 | 3-8 |", hidden=(16,), batch=20, classes=10, screened=False, base_lr=0.02, drop_after_stage=3
)
EPOCHS = 6  # of 10 iterations
# The rate may drop after each epoch, but no plateau ends training: its length must not depend on how the net learns.
SCHEDULE = {"epochs": EPOCHS, "patience": 1, "lr_factor": 0.5, "lr_drops": 100}


@pytest.fixture(scope="module")
def solver(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nets")
    generate.write([ROW], folder, ROOT / "tools")
    return folder / "model6" / "solver.prototxt"


@pytest.fixture(scope="module")
def whole(solver, data, tmp_path_factory):
    """A run that was never stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    train.train(str(solver), Options(data=data, run=run, **SCHEDULE))
    return Run(run)


def sha256(run):
    return hashlib.sha256(run.weights("last").read_bytes()).hexdigest()


def same(run, whole):
    """Check that a run equals the one that was never stopped: weights, records except times, links."""
    assert sha256(run) == sha256(whole)
    for name in ("best", "last"):
        assert run.weights(name).parent.name == whole.weights(name).parent.name

    def lasting(records):
        return [{k: v for k, v in record.items() if k != "images_per_second"} for record in records]

    assert lasting(run.metrics()) == lasting(whole.metrics())
    assert run.info["finished"].keys() == whole.info["finished"].keys()
    assert run.info["finished"]["top1"] == whole.info["finished"]["top1"]
    assert not [path for path in run.path.rglob(".*") if path.name != ".lock"]
    return True


def resume(run, **options):
    return train.train(None, Options(data=None, run=run, resume=True, **options))


def stop_after(monkeypatch, questions):
    monkeypatch.setattr(train, "StopRequest", lambda: StopAfter(questions))


@pytest.mark.parametrize("every", [1, 7, 13])
def test_a_run_that_is_stopped_again_and_again(every, solver, whole, data, tmp_path, monkeypatch):
    """During training and during validation."""
    stop_after(monkeypatch, every)
    stops = 1
    with pytest.raises(Stopped, match=r"SIGTERM at iteration \d+") as stopped:
        train.train(str(solver), Options(data=data, run=tmp_path / "run", quiet=True, **SCHEDULE))
    assert stopped.value.status == 128 + signal.SIGTERM
    while True:
        try:
            result = resume(tmp_path / "run", quiet=True)
            break
        except Stopped:
            stops += 1
    assert stops >= 10 * EPOCHS // (every + 1)
    assert result["iterations"] == 10 * EPOCHS
    assert same(Run(tmp_path / "run"), whole)


def test_the_state_of_the_schedule_survives_a_stop(solver, data, tmp_path, monkeypatch):
    update = schedule.Plateau.update
    monkeypatch.setattr(schedule.Plateau, "update", lambda self, top1: update(self, 0.5))  # only the first is a best
    options = Options(data=data, run=tmp_path / "whole", **SCHEDULE)
    train.train(str(solver), options)
    with monkeypatch.context() as context:
        stop_after(context, 25)
        with pytest.raises(Stopped):
            train.train(str(solver), dataclasses.replace(options, run=tmp_path / "run"))
    resume(tmp_path / "run")
    assert same(Run(tmp_path / "run"), Run(options.run))
    rates = [record["learning_rate"] for record in Run(options.run).metrics() if "top1" in record]
    assert rates == pytest.approx([0.02 / 2**k for k in (0, 0, 1, 2, 3, 4)])


def command(solver, data, run, *more):
    script = [sys.executable, ROOT / "tools" / "train.py", solver, "--data", data, "--run", run, "--resume"]
    flags = [item for name, value in SCHEDULE.items() for item in (f"--{name.replace('_', '-')}", value)]
    return [*script, *flags, *more]


@pytest.mark.slow
@pytest.mark.parametrize("save_every", [15, 0.00001])
def test_a_run_that_is_killed_at_random(save_every, solver, whole, data, tmp_path):
    """Four times with checkpoints after epochs, four times with one after each iteration; some during a checkpoint."""
    run, rng, kills = tmp_path / "run", random.Random(save_every), 0
    while True:
        with interruptible(command(solver, data, run, "--save-every", save_every), stderr=subprocess.PIPE) as process:
            if kills < 4:
                during_checkpoint, known = rng.random() < 0.5, Run(run).iterations()[-1:]
                while process.poll() is None:
                    if during_checkpoint and [*run.glob("checkpoints/.*.tmp")]:
                        break
                    if not during_checkpoint and Run(run).iterations()[-1:] != known:
                        time.sleep(rng.random() * 0.02)
                        break
                process.kill()
            error = process.communicate(timeout=120)[1]
            if process.returncode == 0 and kills:
                break
            if process.returncode == 0:  # it ended before it was killed
                shutil.rmtree(run)
                continue
            assert process.returncode == -signal.SIGKILL, error
            kills += 1
    assert same(Run(run), whole)


# Trains, and kills itself right after the function PLACE has returned for the given number of times.
DYING = """
import os, runpy, signal, sys
from tiny_imagenet import files, runs
from tiny_imagenet.training import solving
place, times, *sys.argv = sys.argv[1:]
*owner, name = place.split(".")
owner = eval(".".join(owner))
inner, left = getattr(owner, name), [int(times)]
def dying(*given, **named):
    result = inner(*given, **named)
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(owner, name, dying)
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def die(solver, data, run, place, times, *more):
    python, *arguments = command(solver, data, run, *more)
    arguments = [python, "-c", DYING, place, times, *arguments]
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize(
    "place", ["solving.save", "files.write_json", "runs.Run.link", "runs.Run.prune", "runs.Run.log", "os.replace"]
)
def test_a_run_that_dies_during_a_checkpoint(place, solver, whole, data, tmp_path):
    run = tmp_path / "run"
    for times in (3, 1):
        die(solver, data, run, place, times)
    train.train(str(solver), Options(data=data, run=run, resume=True, **SCHEDULE))
    assert same(Run(run), whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_with_a_checkpoint(number, solver, data, tmp_path):
    rng = random.Random(number)
    for i in range(3):
        run = tmp_path / str(i)
        with interruptible(command(solver, data, run, "--epochs", 100_000), stderr=subprocess.PIPE) as process:
            wait_for((run / "metrics.jsonl").exists, process)
            time.sleep(rng.random() * 0.3)
            process.send_signal(number)
            error = process.communicate(timeout=120)[1]
        assert process.returncode == 128 + number
        found = re.search(r"train.py: error: stopped by \w+ at iteration (\d+)", error.splitlines()[-1])
        assert found, error
        assert Run(run).iterations()[-1] == int(found[1])
        assert "Traceback" not in error


# Trains with an iteration that never ends, in C++.
ENDLESS = """
import os, runpy, sys
from tiny_imagenet.training import solving
def step(iterations, rate):
    print("within an iteration", file=sys.stderr, flush=True)
    iterations._solver.step(10**9)
solving.Iterations.step = step
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_second_ctrl_c_ends_at_once(solver, data, tmp_path):
    python, *arguments = command(solver, data, tmp_path / "run")
    with interruptible([python, "-c", ENDLESS, *arguments], stderr=subprocess.PIPE) as process:
        for text in ("within an iteration", "Ctrl-C again"):
            while text not in (line := process.stderr.readline()):
                assert line, "it ended before that"
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert Run(tmp_path / "run").iterations() == []


# --- Options and data of a resumed run --------------------------------------------------------------------------------


def test_nothing_to_resume(solver, data, tmp_path, tool):
    with pytest.raises(RunError, match="none.* no run"):
        resume(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    tool("train", "--run", tmp_path / "none", "--resume", fails=1)
    result = train.train(str(solver), Options(data=data, run=tmp_path / "new", max_iter=1, resume=True))
    assert result["iterations"] == 1


def test_a_finished_run_can_be_made_longer(whole, solver, data, tmp_path, tool):
    shutil.copytree(whole.path, tmp_path / "run", symlinks=True)
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    done = tool("train", "--run", tmp_path / "run", "--resume")
    assert "already finished" in done.stdout and "--epochs" in done.stderr
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    short = dataclasses.replace(Options(data=data, run=tmp_path / "short", **SCHEDULE), epochs=2)
    train.train(str(solver), short)
    assert resume(short.run, epochs=EPOCHS)["iterations"] == 10 * EPOCHS
    assert same(Run(short.run), whole)


def test_a_run_that_ended_on_a_plateau_can_be_made_longer(solver, data, tmp_path, monkeypatch):
    """It ends as one that was started with as many drops."""
    update = schedule.Plateau.update
    monkeypatch.setattr(schedule.Plateau, "update", lambda self, top1: update(self, 0.0))  # only the first is a best
    long = Options(data=data, run=tmp_path / "long", epochs=9, patience=1, lr_drops=4, lr_factor=0.5)
    assert train.train(str(solver), long)["iterations"] == 50
    run = Run(tmp_path / "run")
    short = dataclasses.replace(long, run=run.path, epochs=8, lr_drops=2)
    assert train.train(str(solver), short)["iterations"] == 30
    result = resume(run.path, epochs=9)
    assert result["already"] and "--lr-drops 3" in result["longer"]
    with pytest.raises(RunError, match="--lr-drops 2, got 1"):
        resume(run.path, lr_drops=1)
    resume(run.path, epochs=9, lr_drops=4)
    assert run.info["schedule"]["lr_drops"] == 4
    assert same(run, Run(long.run))


def test_a_run_of_an_earlier_version_resumes(solver, whole, data, tmp_path, monkeypatch):
    """Its state has the plateau and the rate apart, and its run.json fewer schedule fields."""
    stop_after(monkeypatch, 25)
    with pytest.raises(Stopped):
        train.train(str(solver), Options(data=data, run=tmp_path / "run", **SCHEDULE))
    monkeypatch.undo()
    run = Run(tmp_path / "run")
    path = run.resume_from() / "state.json"
    state = json.loads(path.read_text())
    rule = state.pop("schedule")
    state["base_lr"] = rule["base_lr"] * rule["factor"] ** rule["dropped"]
    state["plateau"] = {name: rule[name] for name in ("factor", "patience", "drops", "best", "waited", "dropped")}
    path.write_text(json.dumps(state))
    info = run.info
    del info["schedule"]["lr_schedule"]
    run.start(info)
    resume(run.path)
    assert same(run, whole)


def test_another_model_or_data_set_is_refused(whole, solver, data, dataset, tmp_path):
    from tiny_imagenet.data import convert

    shutil.copytree(whole.path, tmp_path / "run", symlinks=True)
    options = Options(data=None, run=tmp_path / "run", resume=True)
    with pytest.raises(RunError, match="not of model1"):
        train.train("model1", dataclasses.replace(options, prototxt=ROOT / "prototxt"))
    convert.convert(dataset, tmp_path / "other", workers=1, seed=2)
    with pytest.raises(DatasetError, match="other records"):
        train.train(None, dataclasses.replace(options, data=tmp_path / "other"))
    shutil.copytree(data, tmp_path / "moved")
    train.train(str(solver), dataclasses.replace(options, data=tmp_path / "moved"))  # the same records elsewhere
    mean = tmp_path / "moved" / "mean.binaryproto"
    mean.write_bytes(mean.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(DatasetError, match="mean"):
        train.train(None, dataclasses.replace(options, data=tmp_path / "moved"))
    Run(tmp_path / "run").update(data=str(tmp_path / "missing"))
    with pytest.raises(RunError, match=r"missing.*--data"):
        train.train(None, options)


def test_a_moved_run_folder_resumes(solver, whole, data, tmp_path, monkeypatch):
    stop_after(monkeypatch, 25)
    with pytest.raises(Stopped):
        train.train(str(solver), Options(data=data, run=tmp_path / "a", **SCHEDULE))
    monkeypatch.undo()
    (tmp_path / "a").rename(tmp_path / "b")
    resume(tmp_path / "b")
    assert same(Run(tmp_path / "b"), whole)


def test_a_copied_run_folder_resumes_with_its_own_net(whole, tmp_path):
    copy = Run(tmp_path / "run")
    shutil.copytree(whole.path, copy.path)  # follows the links
    net = copy.train_val.read_text()
    copy.train_val.write_text(net.replace("dropout_ratio: 0.5", "dropout_ratio: 0.25"))
    resume(copy.path, max_iter=70)
    assert "dropout_ratio: 0.25" in copy.train_val.read_text() and whole.train_val.read_text() == net
    assert (copy.path / "checkpoints" / "last").is_symlink()


def test_a_damaged_checkpoint_is_named(solver, data, tmp_path):
    run = Run(tmp_path / "run")
    train.train(str(solver), Options(data=data, run=run.path, epochs=2))
    newest = run.path / "checkpoints" / "20"
    state = (newest / "solver.solverstate").read_bytes()
    (newest / "solver.solverstate").write_bytes(state[: len(state) // 2])
    with pytest.raises(RunError, match="checkpoints/20.*remove it"):
        resume(run.path, epochs=3)
    shutil.rmtree(newest)
    assert resume(run.path, epochs=3)["iterations"] == 30
    assert [record["epoch"] for record in run.metrics() if "top1" in record] == [1, 2, 3]


def test_files_of_a_killed_start_are_cleared(solver, data, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in (".lock", "train_val.prototxt", ".solver.prototxt.1.tmp"):
        (run / name).write_text("half")
    train.train(str(solver), Options(data=data, run=run, max_iter=1))
    assert "half" not in Run(run).train_val.read_text()
    assert not (run / ".solver.prototxt.1.tmp").exists()


def test_stock_caffe_resumes_from_a_checkpoint(whole, monkeypatch):
    folder = whole.weights("last").parent
    state = caffe.proto.caffe_pb2.SolverState.FromString((folder / "solver.solverstate").read_bytes())
    assert state.learned_net == "weights.caffemodel"
    monkeypatch.chdir(whole.path)  # the solver names the net next to it
    solver = caffe.get_solver("solver.prototxt")
    solving.restore(solver, folder)
    assert solver.iter == int(folder.name)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 9}, "--seed 1, got 9"),
        ({"batch": 7}, "--batch 20, got 7"),
        ({"base_lr": 0.5}, "--base-lr 0.02, got 0.5"),
        ({"patience": 4}, "--patience 1, got 4"),
        ({"lr_schedule": "cosine"}, "--lr-schedule plateau, got cosine"),
        ({"init": ROOT / "nothing"}, "--init"),
    ],
)
def test_flags_that_contradict_the_run_are_refused(changes, named, whole):
    with pytest.raises(RunError, match=named):
        resume(whole.path, **changes)
    assert resume(whole.path, seed=1, batch=20, base_lr=0.02, patience=1)["already"]


def test_records_of_a_run_killed_before_its_first_checkpoint(solver, data, tmp_path):
    """Each stands once in the end, and TensorBoard drops the earlier ones."""
    run = tmp_path / "run"
    die(solver, data, run, "runs.Run.log", 3, "--batch=2")  # epochs of 100 iterations, records every 20
    assert Run(run).iterations() == []
    resume(run, max_iter=100)
    assert [record["iteration"] for record in Run(run).metrics()] == [20, 40, 60, 80, 100]
    from tensorboardX.proto import event_pb2

    newest = max((run / "events").iterdir(), key=lambda path: path.stat().st_mtime_ns).read_bytes()
    events, at = [], 0
    while at < len(newest):
        size = int.from_bytes(newest[at : at + 8], "little")
        events.append(event_pb2.Event.FromString(newest[at + 12 : at + 12 + size]))
        at += 16 + size
    assert any(event.session_log.status == event_pb2.SessionLog.START for event in events)


def test_a_validation_recorded_without_its_checkpoint_is_recorded_once(solver, data, tmp_path, monkeypatch):
    stop_after(monkeypatch, 9)  # during the validation of the first epoch
    with pytest.raises(Stopped):
        train.train(str(solver), Options(data=data, run=tmp_path / "run", epochs=2))
    monkeypatch.undo()
    run = Run(tmp_path / "run")
    assert run.iterations() == [10] and not run.state(run.resume_from())["validated"]
    with open(run.path / "metrics.jsonl", "a") as stream:
        stream.write(json.dumps({"iteration": 10, "epoch": 1.0, "top1": 0.5}) + "\n")
    resume(run.path)
    assert [record["epoch"] for record in run.metrics() if "top1" in record] == [1, 2]


def test_sessions_in_run_json(solver, data, tmp_path):
    options = Options(data=data, run=tmp_path / "run", epochs=1)
    train.train(str(solver), options, ["first"])
    train.train(None, dataclasses.replace(options, data=None, epochs=2, resume=True), ["second"])
    info = Run(options.run).info
    assert [session["argv"] for session in info["sessions"]] == [["first"], ["second"]]
    assert info["max_iter"] == info["finished"]["iterations"] == 20
    assert info["argv"] == ["first"]


def test_the_loss_of_an_iteration_is_that_of_all_its_passes(data, tmp_path):
    """iter_size 4 with batch 5 is batch 20: the same images, without dropout, and so the same loss."""
    losses = []
    for batch, size in ((20, 1), (5, 4)):
        generate.write([ROW.replace(crop=64, dropout=0)], tmp_path / f"net{batch}", ROOT / "tools")
        solver = tmp_path / f"net{batch}" / "model6" / "solver.prototxt"
        train_val = solver.with_name("train_val.prototxt")
        train_val.write_text(train_val.read_text().replace("mirror: true", "mirror: false"))
        solver.write_text(f"{solver.read_text()}iter_size: {size}\n")
        options = Options(data=data, run=tmp_path / f"run{batch}", batch=batch, max_iter=1)
        train.train(str(solver), options)
        losses.append(Run(options.run).metrics()[0]["train_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


# --- Full disks and values that are not finite ------------------------------------------------------------------------


def test_a_full_disk_leaves_the_last_checkpoint_intact(solver, data, tmp_path):
    """Simulated by a limit on file sizes a little below a checkpoint's largest file."""
    run = tmp_path / "run"
    train.train(str(solver), Options(data=data, run=run, epochs=2))
    largest = max(path.stat().st_size for path in run.rglob("*") if path.is_file())
    good = sha256(Run(run))

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 100, largest - 100))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    arguments = (sys.executable, ROOT / "tools" / "train.py", "--run", run, "--resume", "--epochs", 5)
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, preexec_fn=limited)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "train.py: error: cannot write" in done.stderr.splitlines()[-1], done.stderr
    assert sha256(Run(run)) == good
    assert not [*run.glob("checkpoints/.*.tmp")]
    resume(run, epochs=3)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("file", ["metrics.jsonl", "train.log"])
def test_a_record_that_cannot_be_written_ends_the_run(file, solver, data, tmp_path, monkeypatch):
    train.train(str(solver), Options(data=data, run=tmp_path / "run", epochs=1))
    (tmp_path / "run" / file).unlink()
    monkeypatch.setattr(runs.Run, "rewind", lambda *_: None)
    (tmp_path / "run" / file).symlink_to("/dev/full")
    with pytest.raises(RunError, match=os.strerror(errno.ENOSPC)):
        resume(tmp_path / "run", epochs=2)
    assert Run(tmp_path / "run").iterations() == [10]


def test_divergence_names_the_last_good_checkpoint(solver, data, tmp_path):
    run = Run(tmp_path / "run")
    train.train(str(solver), Options(data=data, run=run.path, epochs=1))
    run.solver.write_text(run.solver.read_text().replace("base_lr: 0.02", "base_lr: 1e30"))
    run.update(base_lr=1e30)
    with pytest.raises(RunError, match=r"at iteration 1\d.*checkpoints/10"):
        resume(run.path, epochs=3)
    assert run.iterations() == [10]


def test_weights_that_are_not_finite_are_not_written(solver, data, tmp_path, monkeypatch):
    solvers, get_solver = [], caffe.get_solver

    class Broken(StopAfter):
        @property
        def signal(self):
            found = super().signal
            if found:
                solvers[-1].net.params["fc3"][0].data[0, 0] = np.inf
            return found

    monkeypatch.setattr(caffe, "get_solver", lambda message: solvers.append(get_solver(message)) or solvers[-1])
    monkeypatch.setattr(train, "StopRequest", lambda: Broken(4))
    with pytest.raises(RunError, match="fc3 is nan at iteration 5"):
        train.train(str(solver), Options(data=data, run=tmp_path / "run", epochs=2))
    assert Run(tmp_path / "run").iterations() == []


# --- Stages -----------------------------------------------------------------------------------------------------------

STAGED = ROW.replace(name="deep", convs="3-4 3-4 | 3-4 3-4 | 3-8 |", shallow=("3-4 | 3-4 | 3-8 |",))


@pytest.fixture(scope="module")
def staged_solver(tmp_path_factory):
    folder = tmp_path_factory.mktemp("staged")
    generate.write([STAGED], folder, ROOT / "tools")
    return folder / "deep" / "solver.prototxt"


@pytest.fixture(scope="module")
def staged(staged_solver, data, tmp_path_factory):
    run = tmp_path_factory.mktemp("staged_run") / "run"
    train.train(str(staged_solver), Options(data=data, run=run, epochs=2))
    return Run(run)


def test_a_stage_initializes_the_next_by_layer_name(staged, data, staged_solver, tmp_path):
    stage = staged.stage(1)
    assert stage.info["finished"]["iterations"] == staged.info["finished"]["iterations"] == 20
    shared = ["conv1_1", "conv2_1", "conv3_1", "fc1", "fc3"]
    assert f": {', '.join(shared)}\n" in staged.log_file.read_text()
    # With a rate of almost zero the weights after an iteration are those before it.
    options = Options(data=data, run=tmp_path / "run", max_iter=1, base_lr=1e-12, init=stage.weights("best"))
    train.train(str(staged_solver), options)
    run = Run(tmp_path / "run")
    assert run.info["stages"] == 0
    before, after = (caffe.Net(str(r.deploy), caffe.TEST, weights=str(r.weights("best"))) for r in (stage, run))
    for name in after.params:
        for i in range(2):
            new = after.params[name][i].data
            if name in shared:
                np.testing.assert_allclose(new, before.params[name][i].data, rtol=1e-6, atol=1e-10)
            elif i == 0:
                assert np.std(new) > 0.01


def test_a_staged_run_that_is_stopped_again_and_again(staged, staged_solver, data, tmp_path, monkeypatch):
    stop_after(monkeypatch, 9)
    run = Run(tmp_path / "run")
    with pytest.raises(Stopped, match="of stage 1"):
        train.train(str(staged_solver), Options(data=data, run=run.path, epochs=2, quiet=True))
    while True:
        try:
            resume(run.path, quiet=True)
            break
        except Stopped:
            pass
    assert sha256(run) == sha256(staged)
    assert sha256(run.stage(1)) == sha256(staged.stage(1))


def test_stages_are_made_longer_until_their_weights_are_in_use(staged, staged_solver, data, tmp_path, monkeypatch):
    run = Run(tmp_path / "run")
    stop_after(monkeypatch, 3)
    with pytest.raises(Stopped):
        train.train(str(staged_solver), Options(data=data, run=run.path, epochs=1, quiet=True))
    monkeypatch.undo()
    resume(run.path, epochs=2)
    assert sha256(run.stage(1)) == sha256(staged.stage(1)) and sha256(run) == sha256(staged)
    resume(run.path, epochs=3)
    assert [run.stage(1).info["max_iter"], run.info["max_iter"]] == [20, 30]
    assert "stage 1" in run.log_file.read_text()


def test_without_stages(staged_solver, data, tmp_path):
    train.train(str(staged_solver), Options(data=data, run=tmp_path / "run", max_iter=1, staged=False))
    assert not (tmp_path / "run" / "stages").exists()


def test_weights_of_another_shape_are_refused_with_both(staged, data, tmp_path):
    generate.write([STAGED.replace(name="other", hidden=(17,), shallow=())], tmp_path, ROOT / "tools")
    options = Options(data=data, run=tmp_path / "run", init=staged.weights("best"))
    with pytest.raises(NetError, match=r"(?s)fc1.*16 392.*17 392"):
        train.train(str(tmp_path / "other" / "solver.prototxt"), options)
    assert not (tmp_path / "run").exists()


def test_a_stage_that_fails_at_once_leaves_no_folder(staged_solver, data, tmp_path):
    copy = tmp_path / "deep"
    shutil.copytree(staged_solver.parent, copy)
    path = copy / "stages" / "1" / "train_val.prototxt"
    path.write_text(path.read_text().replace('type: "xavier"', 'type: "xavierr"'))
    with pytest.raises(NetError, match="xavierr"):
        train.train(str(copy / "solver.prototxt"), Options(data=data, run=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
