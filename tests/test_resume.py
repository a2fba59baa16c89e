"""Runs that end before their end, by all means, and go on: nothing is lost, nothing is otherwise."""

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
from tiny_imagenet.training import schedule, snapshots, train
from tiny_imagenet.training.train import Options

# Convolutions, dropout, CropData: what the nine have, in a net that takes a moment.
ROW = zoo.MODELS["model6"].replace(
    convs="3-4 3-4 | 3-4 | 3-8 |", hidden=(16,), batch=20, classes=10, screened=False, base_lr=0.02, drop_after_stage=3
)
EPOCHS = 6  # of 10 iterations


@pytest.fixture(scope="module")
def solver(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nets")
    generate.write([ROW], folder, ROOT / "tools")
    return folder / "model6" / "solver.prototxt"


@pytest.fixture(scope="module")
def whole(solver, data, tmp_path_factory):
    """A run that nothing has stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    train.train(str(solver), Options(data=data, run=run, epochs=EPOCHS, patience=1))
    return Run(run)


def sha256(run):
    return hashlib.sha256(Run(run.path).weights("last").read_bytes()).hexdigest()


def same(run, whole):
    """Whether a run has ended as the one that was never stopped: the weights' bytes, and the records but for times."""
    assert sha256(run) == sha256(whole)
    for name in ("best", "last"):
        assert run.weights(name).parent.name == whole.weights(name).parent.name

    def lasting(records):
        return [{k: v for k, v in record.items() if k != "images_per_second"} for record in records]

    assert lasting(run.metrics()) == lasting(whole.metrics())
    validated = [record["epoch"] for record in run.metrics() if "top1" in record]
    assert validated == sorted(set(validated))
    assert run.info["finished"].keys() == whole.info["finished"].keys()
    assert run.info["finished"]["top1"] == whole.info["finished"]["top1"]
    assert not [path for path in run.path.rglob(".*") if path.name != ".lock"]
    return True


def test_the_schedule_has_dropped_the_rate_on_the_way(whole):
    """Or the runs below would not show that its state is kept."""
    assert len({record["learning_rate"] for record in whole.metrics()}) > 1


@pytest.mark.parametrize("every", [1, 7, 13])
def test_a_run_that_is_stopped_again_and_again(every, solver, whole, data, tmp_path, monkeypatch):
    """In training and in validation, which asks too."""
    monkeypatch.setattr(train, "StopRequest", lambda: StopAfter(every))
    options = Options(data=data, run=tmp_path / "run", epochs=EPOCHS, patience=1, quiet=True)
    stops = 0
    with pytest.raises(Stopped, match=r"stopped by SIGTERM at iteration \d+, with a checkpoint") as stopped:
        train.train(str(solver), options)
    assert stopped.value.status == 128 + signal.SIGTERM
    while True:
        try:
            result = train.train(None, Options(data=None, run=tmp_path / "run", resume=True, quiet=True))
            break
        except Stopped:
            stops += 1
    assert stops >= 3
    assert result["iterations"] == whole.info["finished"]["iterations"]
    assert same(Run(tmp_path / "run"), whole)


def command(solver, data, run, *more):
    script = [sys.executable, ROOT / "tools" / "train.py", solver, "--data", data, "--run", run]
    return [*script, "--epochs", EPOCHS, "--patience", 1, "--resume", *more]


@pytest.mark.parametrize("save_every", [15, 0.00001])
def test_a_run_that_is_killed_at_random_moments(save_every, solver, whole, data, tmp_path):
    """Six times with checkpoints as they come, six times with one after each iteration; some die while writing one."""
    run, rng, kills, within = tmp_path / "run", random.Random(save_every), 0, 0
    for _ in range(60):
        with interruptible(command(solver, data, run, "--save-every", save_every), stderr=subprocess.PIPE) as process:
            if kills < 6:
                in_writing = rng.random() < 0.5
                end = time.monotonic() + (2 * rng.random() if rng.random() < 0.2 else 60)  # some before it has come far
                seen = Run(run).iterations()[-1:]
                while process.poll() is None and time.monotonic() < end:
                    if in_writing and [*run.glob("checkpoints/.*.tmp")]:
                        break
                    if not in_writing and Run(run).iterations()[-1:] != seen:
                        time.sleep(rng.random() * 0.02)
                        break
                process.kill()
            error = process.communicate(timeout=60)[1]
            if process.returncode == 0 and kills:
                break
            if process.returncode == 0:  # it was too fast
                shutil.rmtree(run)
                continue
            assert process.returncode == -signal.SIGKILL, error
            kills += 1
            within += bool([*run.glob("checkpoints/.*.tmp")])
    assert same(Run(run), whole)
    print(f"{kills} kills, {within} within a checkpoint")


# Trains, and dies by SIGKILL right after what PLACE does has been done for the so-manieth time.
DYING = """
import os, runpy, signal, sys
from tiny_imagenet import files, runs
from tiny_imagenet.training import snapshots
place, times, *sys.argv = sys.argv[1:]
*owner, name = place.split(".")
owner = eval(".".join(owner))
inner, left = getattr(owner, name), [int(times)]
def dying(*given):
    result = inner(*given)
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
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize(
    "place", ["snapshots.write", "files.write_json", "runs.Run.link", "runs.Run.prune", "runs.Run.log", "os.replace"]
)
def test_a_run_that_dies_within_a_checkpoint(place, solver, whole, data, tmp_path):
    """At three times."""
    run = tmp_path / "run"
    for times in (3, 2, 1):
        die(solver, data, run, place, times)
    train.train(str(solver), Options(data=data, run=run, epochs=EPOCHS, patience=1, resume=True))
    assert same(Run(run), whole)


# Trains with an iteration that has no end, in C++, which looks at no signals of its own.
ENDLESS = """
import os, runpy, sys
from tiny_imagenet.training import solving
def step(iterations):
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
        for says in ("within an iteration", "SIGINT: ending after this iteration with a checkpoint; Ctrl-C again ends"):
            while says not in (line := process.stderr.readline()):
                assert line, "it ended before that"
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert Run(tmp_path / "run").iterations() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_moment_ends_with_a_checkpoint(number, solver, data, tmp_path):
    """At ten moments each; some fall into a validation or a checkpoint."""
    rng = random.Random(number)
    endless = ["--patience", 0, "--epochs", 100_000]  # of two that are given the later one counts
    for i in range(5):
        run = tmp_path / str(i)
        with interruptible(command(solver, data, run, *endless), stderr=subprocess.PIPE) as process:
            wait_for((run / "metrics.jsonl").exists, process)
            time.sleep(rng.random() * 0.3)
            process.send_signal(number)
            error = process.communicate(timeout=60)[1]
        assert process.returncode == 128 + number
        last = error.splitlines()[-1]
        found = re.search(r"train.py: error: stopped by \w+ at iteration (\d+), with a checkpoint: .*--resume", last)
        assert found, error
        assert Run(run).iterations()[-1] == int(found[1])
        assert "Traceback" not in error


# --- What a run goes on with ---


def test_nothing_to_go_on_with(solver, data, tmp_path, tool):
    with pytest.raises(RunError, match="has no run to go on with"):
        train.train(None, Options(data=None, run=tmp_path / "none", resume=True))
    assert not (tmp_path / "none").exists()
    tool("train", "--run", tmp_path / "none", fails=2)
    tool("train", "--run", tmp_path / "none", "--resume", fails=1)
    result = train.train(str(solver), Options(data=data, run=tmp_path / "new", max_iter=1, resume=True))
    assert result["iterations"] == 1


def test_a_finished_run_says_so_and_can_be_made_longer(whole, solver, data, tmp_path):
    shutil.copytree(whole.path, tmp_path / "run", symlinks=True)
    options = Options(data=None, run=tmp_path / "run", resume=True)
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    result = train.train(None, options)
    assert result["iterations"] == whole.info["finished"]["iterations"]
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    short = Options(data=data, run=tmp_path / "short", epochs=2)
    train.train(str(solver), short)
    longer = train.train(None, dataclasses.replace(short, data=None, epochs=3, resume=True))
    assert longer["iterations"] == 30
    assert [record["epoch"] for record in Run(short.run).metrics() if "top1" in record] == [1, 2, 3]


def test_a_run_that_ended_on_a_plateau_can_be_made_longer(solver, data, tmp_path, monkeypatch, tool):
    """It ends as the one that was begun with as many drops."""
    update = schedule.Plateau.update
    monkeypatch.setattr(schedule.Plateau, "update", lambda self, top1: update(self, 0.0))  # the first is the best
    long = Options(data=data, run=tmp_path / "long", epochs=9, patience=1, lr_drops=4, lr_factor=0.5)
    assert train.train(str(solver), long)["iterations"] == 50
    run = Run(tmp_path / "run")
    short = dataclasses.replace(long, run=run.path, epochs=8, lr_drops=2)
    assert train.train(str(solver), short)["iterations"] == 30
    again = dataclasses.replace(short, data=None, lr_drops=None, epochs=9, resume=True)
    result = train.train(None, again)
    assert result["already"] and result["longer"] == (
        "top-1 was no better for an epoch, 2 times: --resume --lr-drops 3 goes on"
    )
    done = tool("train", "--run", run.path, "--resume", "--epochs", 9)
    assert done.stderr.splitlines()[-1] == f"{run.path}: {result['longer']}"
    with pytest.raises(RunError, match=r"another --lr-drops \(2, not 1\)"):
        train.train(None, dataclasses.replace(again, lr_drops=1))
    train.train(None, dataclasses.replace(again, lr_drops=4))
    assert run.info["schedule"]["lr_drops"] == 4
    assert same(run, Run(long.run))
    assert "--lr-drops 4: learning rate 0.005 from here" in run.log_file.read_text()


def test_drops_do_not_go_with_another_policy_when_a_run_goes_on_either(solver, data, tmp_path):
    run = Run(tmp_path / "run")
    train.train(str(solver), Options(data=data, run=run.path, max_iter=1))
    policy = 'lr_policy: "step"\nstepsize: 15\ngamma: 0.5'
    run.solver.write_text(run.solver.read_text().replace('lr_policy: "fixed"', policy))
    with pytest.raises(NetError, match='go with lr_policy "fixed" alone'):
        train.train(None, Options(data=None, run=run.path, resume=True, lr_drops=9))


def test_another_model_or_data_set_is_refused(whole, solver, data, dataset, tmp_path):
    from tiny_imagenet.data import convert

    shutil.copytree(whole.path, tmp_path / "run", symlinks=True)
    options = Options(data=None, run=tmp_path / "run", resume=True)
    with pytest.raises(RunError, match=r"is a run of .*solver\.prototxt, not of model1"):
        train.train("model1", dataclasses.replace(options, prototxt=ROOT / "prototxt"))
    convert.convert(dataset, tmp_path / "other", workers=1, seed=2)
    with pytest.raises(DatasetError, match="has not the records that .* was begun with"):
        train.train(None, dataclasses.replace(options, data=tmp_path / "other"))
    shutil.copytree(data, tmp_path / "moved")
    train.train(str(solver), dataclasses.replace(options, data=tmp_path / "moved"))  # the same records elsewhere
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**info, "data": str(tmp_path / "gone")}))
    with pytest.raises(
        RunError, match="trained on .*gone, which is not there any more: name the data folder with --data"
    ):
        train.train(None, options)


def test_a_run_folder_that_was_moved_goes_on(solver, whole, data, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "StopRequest", lambda: StopAfter(25))
    with pytest.raises(Stopped):
        train.train(str(solver), Options(data=data, run=tmp_path / "a", epochs=EPOCHS, patience=1))
    monkeypatch.undo()
    (tmp_path / "a").rename(tmp_path / "b")
    train.train(None, Options(data=None, run=tmp_path / "b", resume=True))
    assert same(Run(tmp_path / "b"), whole)


def test_a_damaged_checkpoint_says_what_to_do(solver, data, tmp_path):
    train.train(str(solver), Options(data=data, run=tmp_path / "run", epochs=2))
    run = Run(tmp_path / "run")
    options = Options(data=None, run=run.path, epochs=3, resume=True)
    newest = run.path / "checkpoints" / "20"
    state = (newest / "solver.solverstate").read_bytes()
    (newest / "solver.solverstate").write_bytes(state[: len(state) // 2])
    with pytest.raises(
        RunError, match=r"cannot go on from .*checkpoints/20: Fail.*: remove it to go on from an earlier one"
    ):
        train.train(None, options)
    shutil.rmtree(newest)
    assert train.train(None, options)["iterations"] == 30
    assert [record["epoch"] for record in run.metrics() if "top1" in record] == [1, 2, 3]


def test_what_a_killed_start_left_is_cleared(solver, data, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in (".lock", "train_val.prototxt", ".solver.prototxt.1.tmp"):
        (run / name).write_text("half")
    train.train(str(solver), Options(data=data, run=run, max_iter=1))
    assert "half" not in Run(run).train_val.read_text()
    assert not (run / ".solver.prototxt.1.tmp").exists()


def test_a_snapshot_leads_on_in_stock_caffe_too(whole):
    """Its state names its weights, from the checkpoint's folder."""
    folder = whole.weights("last").parent
    state = caffe.proto.caffe_pb2.SolverState.FromString((folder / "solver.solverstate").read_bytes())
    assert state.learned_net == "weights.caffemodel"
    solver = caffe.get_solver(str(whole.solver))
    snapshots.restore(solver, folder)
    assert solver.iter == int(folder.name)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seed": 9}, r"begun with another --seed \(1, not 9\): leave the flag out"),
        ({"batch": 7}, r"another --batch \(20, not 7\)"),
        ({"base_lr": 0.5}, r"another --base-lr \(0.02, not 0.5\)"),
        ({"patience": 4}, r"another --patience \(1, not 4\)"),
        ({"init": ROOT / "nothing"}, "another --init"),
    ],
)
def test_flags_that_contradict_the_run_are_refused(changes, says, whole, tmp_path):
    with pytest.raises(RunError, match=says):
        train.train(None, Options(data=None, run=whole.path, resume=True, **changes))
    same = {"seed": 1, "batch": 20, "base_lr": 0.02, "patience": 1}
    assert train.train(None, Options(data=None, run=whole.path, resume=True, **same))["already"]


def test_another_mean_is_refused(whole, data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    mean = tmp_path / "data" / "mean.binaryproto"
    mean.write_bytes(mean.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(DatasetError, match="has another mean image than"):
        train.train(None, Options(data=tmp_path / "data", run=whole.path, resume=True))


def test_a_run_that_is_killed_before_its_first_checkpoint_has_each_record_once(solver, data, tmp_path):
    """And TensorBoard is told."""
    run = tmp_path / "run"
    die(solver, data, run, "runs.Run.log", 3, "--batch=2")  # epochs of 100 iterations, records each 20
    assert Run(run).iterations() == []
    train.train(None, Options(data=None, run=run, resume=True, max_iter=100))
    assert [record["iteration"] for record in Run(run).metrics()] == [20, 40, 60, 80, 100]
    from tensorboardX.proto import event_pb2

    newest = max((run / "events").iterdir(), key=lambda path: path.stat().st_mtime_ns).read_bytes()
    events, at = [], 0
    while at < len(newest):
        size = int.from_bytes(newest[at : at + 8], "little")
        events.append(event_pb2.Event.FromString(newest[at + 12 : at + 12 + size]))
        at += 16 + size
    assert any(event.session_log.status == event_pb2.SessionLog.START for event in events)


def test_a_validation_that_was_recorded_and_not_kept_is_recorded_once(solver, data, tmp_path, monkeypatch):
    """Stopped in a validation, then killed between its record and its checkpoint."""
    monkeypatch.setattr(train, "StopRequest", lambda: StopAfter(9))  # in the first epoch's validation
    with pytest.raises(Stopped):
        train.train(str(solver), Options(data=data, run=tmp_path / "run", epochs=2))
    monkeypatch.undo()
    run = Run(tmp_path / "run")
    assert run.iterations() == [10] and not run.state(run.resume_from())["validated"]
    with open(run.path / "metrics.jsonl", "a") as stream:
        stream.write(json.dumps({"iteration": 10, "epoch": 1.0, "top1": 0.5}) + "\n")
    train.train(None, Options(data=None, run=run.path, resume=True))
    assert [record["epoch"] for record in run.metrics() if "top1" in record] == [1, 2]


def test_a_checkpoint_that_is_written_again_is_there_all_the_while(solver, data, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "StopRequest", lambda: StopAfter(9))
    with pytest.raises(Stopped):
        train.train(str(solver), Options(data=data, run=tmp_path / "run", epochs=2))
    monkeypatch.undo()
    run = Run(tmp_path / "run")
    before = sha256(run)

    def full(*_):
        raise RunError("cannot write: no space")

    monkeypatch.setattr(snapshots, "write", full)
    again = "the last good checkpoint is .*/10: once that can be written, the same command with --resume goes on"
    with pytest.raises(RunError, match=f"no space; {again}"):
        train.train(None, Options(data=None, run=run.path, resume=True))
    assert run.iterations() == [10] and sha256(run) == before


def test_a_checkpoint_that_cannot_be_written_is_one_of_an_iteration(tmp_path):
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape { dim: 1 } } }'
    )
    message = f'net: "{tmp_path}/net.prototxt" base_lr: 1 lr_policy: "fixed" snapshot_prefix: "{tmp_path}/x"'
    (tmp_path / "solver.prototxt").write_text(message)
    own = caffe.get_solver(tmp_path / "solver.prototxt")
    with pytest.raises(RunError, match="^cannot write the checkpoint of iteration 0: No such file or directory$"):
        snapshots.write(own, tmp_path / "gone")


def test_a_copy_without_links_goes_on(whole, tmp_path):
    shutil.copytree(whole.path, tmp_path / "run")  # follows them
    result = train.train(None, Options(data=None, run=tmp_path / "run", resume=True, max_iter=70))
    assert result["iterations"] == 70 or result["verdict"] == "stop"
    assert (tmp_path / "run" / "checkpoints" / "last").is_symlink() or result["already"]


def test_a_copy_goes_on_with_its_own_net(whole, tmp_path):
    """Its solver names that of the run that it was copied from."""
    copy = Run(tmp_path / "run")
    shutil.copytree(whole.path, copy.path, symlinks=True)
    net = copy.train_val.read_text()
    copy.train_val.write_text(net.replace("dropout_ratio: 0.5", "dropout_ratio: 0.25"))
    train.train(None, Options(data=None, run=copy.path, resume=True, max_iter=70, lr_drops=9))
    assert "dropout_ratio: 0.25" in copy.train_val.read_text() and whole.train_val.read_text() == net
    copy.deploy.unlink()
    with pytest.raises(NetError, match=rf"{copy.deploy} is missing"):
        train.train(None, Options(data=None, run=copy.path, resume=True, max_iter=80))


def test_run_json_tells_of_each_session(solver, data, tmp_path):
    options = Options(data=data, run=tmp_path / "run", epochs=1)
    train.train(str(solver), options, ["first"])
    train.train(None, dataclasses.replace(options, data=None, epochs=2, resume=True), ["second"])
    info = Run(options.run).info
    assert [session["argv"] for session in info["sessions"]] == [["first"], ["second"]]
    assert info["max_iter"] == info["finished"]["iterations"] == 20
    assert info["argv"] == ["first"]


def test_a_stage_is_locked_and_tidied_with_the_whole(staged_solver, data, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "StopRequest", lambda: StopAfter(14))
    with pytest.raises(Stopped, match=r"at iteration \d+ of stage 1"):
        train.train(str(staged_solver), Options(data=data, run=tmp_path / "run", epochs=2))
    stage = Run(tmp_path / "run").stage(1)
    left = stage.path / "checkpoints" / ".10.gone.tmp"
    left.mkdir()
    (left / "x").touch()
    monkeypatch.undo()
    with runs.reopen(stage.path), pytest.raises(RunError, match="is in use by another training"):
        train.train(None, Options(data=None, run=tmp_path / "run", resume=True))
    train.train(None, Options(data=None, run=tmp_path / "run", resume=True))
    assert not left.exists()


def test_the_loss_of_an_iteration_is_that_of_all_its_passes(data, tmp_path):
    """iter_size 4 of batch 5 is one of batch 20: the same images, whole and without dropout, and so the same loss."""
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


# --- Disks and numbers ---


def test_a_full_disk_ends_in_one_line_and_the_last_checkpoint_is_good(solver, data, tmp_path):
    """Files may grow to a little more than a checkpoint's largest: train.log and metrics.jsonl reach it."""
    run = tmp_path / "run"
    options = Options(data=data, run=run, epochs=2)
    train.train(str(solver), options)
    largest = max(path.stat().st_size for path in run.rglob("*") if path.is_file())
    shutil.rmtree(run)
    train.train(str(solver), options)
    good = sha256(Run(run))

    def limited(size):
        return lambda: (
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
        )

    done = subprocess.run(
        [str(part) for part in (sys.executable, ROOT / "tools" / "train.py", "--run", run, "--resume", "--epochs", 5)],
        capture_output=True,
        text=True,
        preexec_fn=limited(largest - 100),
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(r"train.py: error: cannot write .*", done.stderr.splitlines()[-1]), done.stderr
    assert sha256(Run(run)) == good
    assert not [*run.glob("checkpoints/.*.tmp")]
    train.train(None, Options(data=None, run=run, epochs=3, resume=True))


@pytest.mark.parametrize("file", ["metrics.jsonl", "train.log"])
def test_a_record_that_cannot_be_written_ends_the_run(file, solver, data, tmp_path, monkeypatch):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this system")
    train.train(str(solver), Options(data=data, run=tmp_path / "run", epochs=1))
    (tmp_path / "run" / file).unlink()
    monkeypatch.setattr(runs.Run, "rewind", lambda *_: None)
    (tmp_path / "run" / file).symlink_to("/dev/full")
    with pytest.raises(RunError, match=f"cannot write .*{os.strerror(errno.ENOSPC)}"):
        train.train(None, Options(data=None, run=tmp_path / "run", epochs=2, resume=True))
    assert Run(tmp_path / "run").iterations() == [10]


def test_a_loss_that_is_not_finite_names_the_last_good_checkpoint(solver, data, tmp_path):
    train.train(str(solver), Options(data=data, run=tmp_path / "run", epochs=1))
    text = (tmp_path / "run" / "checkpoints" / "10" / "state.json").read_text()
    state = {**json.loads(text), "base_lr": 1e30}
    (tmp_path / "run" / "checkpoints" / "10" / "state.json").write_text(json.dumps(state))
    with pytest.raises(RunError, match=r"is \S+ at iteration 1\d: .*the last good checkpoint is .*checkpoints/10"):
        train.train(None, Options(data=None, run=tmp_path / "run", epochs=3, resume=True))
    assert Run(tmp_path / "run").iterations() == [10]


def test_weights_that_are_not_finite_are_not_written(solver, data, tmp_path, monkeypatch):
    class Broken(StopAfter):
        @property
        def signal(self):
            found = super().signal
            if found:
                solvers[-1].net.params["fc3"][0].data[0, 0] = np.inf
            return found

    solvers = []
    get_solver = caffe.get_solver
    monkeypatch.setattr(caffe, "get_solver", lambda path: solvers.append(get_solver(path)) or solvers[-1])
    monkeypatch.setattr(train, "StopRequest", lambda: Broken(4))
    with pytest.raises(RunError, match="weight of layer fc3 is nan at iteration 5"):
        train.train(str(solver), Options(data=data, run=tmp_path / "run", epochs=2))
    assert Run(tmp_path / "run").iterations() == []


# --- Stages ---

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


def test_a_stage_hands_its_weights_on_by_layer_name(staged, data, staged_solver, tmp_path):
    stage = staged.stage(1)
    assert stage.info["finished"]["iterations"] == staged.info["finished"]["iterations"] == 20
    text = staged.log_file.read_text()
    assert "weights from " in text and "stages/1/checkpoints/" in text
    carried = "conv1_1, conv2_1, conv3_1, fc1, fc3"
    assert f": {carried}\n" in text
    assert "filled at random: conv1_2, conv2_2\n" in text
    # Layer by layer: with a rate of next to nothing they are after an iteration what they were.
    options = Options(data=data, run=tmp_path / "run", max_iter=1, base_lr=1e-12, init=stage.weights("best"))
    train.train(str(staged_solver), options)
    assert Run(tmp_path / "run").info["stages"] == 0
    before, after = (
        caffe.Net(str(run.deploy), caffe.TEST, weights=str(run.weights("best")))
        for run in (stage, Run(tmp_path / "run"))
    )
    for name in after.params:
        for i in range(2):
            new = after.params[name][i].data
            if name in carried.split(", "):
                np.testing.assert_allclose(new, before.params[name][i].data, rtol=1e-6, atol=1e-10)
            elif i == 0:
                assert np.std(new) > 0.01


def test_a_staged_run_that_is_stopped_again_and_again(staged, staged_solver, data, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "StopRequest", lambda: StopAfter(9))
    options = Options(data=data, run=tmp_path / "run", epochs=2, quiet=True)
    with pytest.raises(Stopped):
        train.train(str(staged_solver), options)
    while True:
        try:
            train.train(None, Options(data=None, run=tmp_path / "run", resume=True, quiet=True))
            break
        except Stopped:
            pass
    run = Run(tmp_path / "run")
    assert sha256(run) == sha256(staged)
    assert sha256(run.stage(1)) == sha256(staged.stage(1))


def test_stages_are_made_longer_until_their_weights_are_taken_over(staged_solver, data, tmp_path, monkeypatch):
    long = Options(data=data, run=tmp_path / "long", epochs=2, quiet=True)
    train.train(str(staged_solver), long)
    run = Run(tmp_path / "run")
    monkeypatch.setattr(train, "StopRequest", lambda: StopAfter(3))
    with pytest.raises(Stopped):
        train.train(str(staged_solver), dataclasses.replace(long, run=run.path, epochs=1))
    monkeypatch.undo()
    again = dataclasses.replace(long, data=None, run=run.path, resume=True)
    train.train(None, again)
    assert sha256(run.stage(1)) == sha256(Run(long.run).stage(1)) and sha256(run) == sha256(Run(long.run))
    assert "stays as long" not in run.log_file.read_text()
    train.train(None, dataclasses.replace(again, epochs=3))
    assert [run.stage(1).info["max_iter"], run.info["max_iter"]] == [20, 30]
    says = "stage 1 stays as long as it was: its weights have been taken over"
    assert says in run.log_file.read_text()


def test_without_stages(staged_solver, data, tmp_path):
    train.train(str(staged_solver), Options(data=data, run=tmp_path / "run", max_iter=1, staged=False))
    assert not (tmp_path / "run" / "stages").exists()


def test_weights_of_another_shape_are_refused_with_both(staged, data, tmp_path):
    other = STAGED.replace(name="other", hidden=(17,), shallow=())
    generate.write([other], tmp_path, ROOT / "tools")
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
