#!/usr/bin/env python3
"""The nine nets on a GPU beside the CPU, by the caffe program alone: what one iteration does to each weight.

    tests/gpu_models.py --write NETS            write what is trained: nets and a small data set (needs .venv)
    tests/gpu_models.py CAFFE NETS [MODEL ...]  compare; needs numpy, the program and that folder, nothing else
    tests/gpu_models.py CAFFE NETS --learn      train the first net for a while, and test it
    tests/gpu_models.py CAFFE NETS --gpu none   the CPU with two threads beside the CPU with one, to see that it works

Compared is the solver's history after the first iteration: the update of each parameter, before it is rounded to the
weight. A blob's difference is the norm of all its values' differences over the norm of the CPU's. Without dropout,
whose masks differ, and with a batch of 8. --gpu all, or 0,1,... has several GPUs share the batch.

Ends with 0 where all is within --tolerance and --tf32-tolerance, with 1 where it is not or a program failed.
"""

import argparse
import mmap
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODELS = [f"model{number}" for number in range(1, 10)]
BATCH, LEARN_BATCH, LEARN = 8, 40, 200  # images, images, iterations
LEAST = 0.5  # top-1 after learning; 0.1 is chance
# What rounding alone may make of the nine nets, where ReLUs and poolings decide otherwise for it. Beside float64 the
# CPU's updates are up to 2e-2 away (Model 9, by Winograd's algorithm, which cuDNN has too), and those whose factors are
# rounded to TF32 up to 1.2e-1. What is wrong is of the size of the update itself.
TOLERANCE, TF32_TOLERANCE = 1e-1, 4e-1


# --- Writing ---------------------------------------------------------------------------------------------------------


def write(folder):
    """Nets and data, all named from within the folder."""
    from caffe.proto import caffe_pb2

    from tiny_imagenet.data import convert, sample
    from tiny_imagenet.models import nets, solvers

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        sample.write(Path(temporary) / "sample", train=400, val=100, test=10, seed=1)
        convert.convert(Path(temporary) / "sample", folder / "data", workers=1, seed=1)
    for name in ("train_screened", "test"):  # what no net here reads
        shutil.rmtree(folder / "data" / f"{name}.lmdb")
    for name in MODELS:
        net = nets.read(ROOT / "prototxt" / name / "train_val.prototxt")
        solver = solvers.read(ROOT / "prototxt" / name / "solver.prototxt")
        if name == MODELS[0]:
            (folder / "learn.prototxt").write_text(nets.to_text(_fitted(net, LEARN_BATCH, nets)))
        for layer in [*net.layer]:
            if layer.type == "Dropout" or any(rule.phase == caffe_pb2.TEST for rule in layer.include):
                net.layer.remove(layer)
        (folder / f"{name}.prototxt").write_text(nets.to_text(_fitted(net, BATCH, nets)))
        rates = "".join(f"{key}: {getattr(solver, key):g}\n" for key in ("base_lr", "momentum", "weight_decay"))
        (folder / f"{name}.rates").write_text(rates)


def _fitted(net, batch, nets):
    """A copy of a net with its data in data/ and such a batch."""
    fitted = type(net)()
    fitted.CopyFrom(net)
    for layer in fitted.layer:
        if layer.type == "CropData":
            param = nets.data_param(layer)
            train = not any(rule.phase == 1 for rule in layer.include)
            param.source = "data/train.lmdb" if train else "data/val.lmdb"
            param.batch_size = batch if train else 50
            param.seed = 1
            layer.transform_param.mean_file = "data/mean.binaryproto"
    return fitted


# --- Running ---------------------------------------------------------------------------------------------------------


class FailedError(Exception):
    """A program failed."""


def caffe(program, nets, *arguments, **environment):
    """What a run of the program prints, in the folder of the nets."""
    settings = {**os.environ, "GLOG_logtostderr": "1", "GLOG_minloglevel": "0", **environment}
    command = [str(program), *map(str, arguments)]
    done = subprocess.run(command, cwd=nets, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise FailedError(
            f"{' '.join(command)} ended with status {done.returncode}: {done.stdout.strip().splitlines()[-1]}"
        )
    return done.stdout


def update(program, nets, model, gpu=None, **environment):
    """The loss of the first iteration, and the history after it: its bytes and the blobs in order, by name."""
    with tempfile.TemporaryDirectory() as folder:
        solver = Path(folder) / "solver.prototxt"
        rates = (Path(nets) / f"{model}.rates").read_text()
        solver.write_text(
            f'net: "{model}.prototxt"\nlr_policy: "fixed"\nmax_iter: 1\ndisplay: 1\nrandom_seed: 1\n'
            f'snapshot_prefix: "{folder}/it"\n{rates}'
        )
        where = [] if gpu is None else [f"--gpu={gpu}"]
        text = caffe(program, nets, "train", f"--solver={solver}", *where, **environment)
        loss = float(re.search(r"Iteration 0 .*loss = (\S+)", text)[1])
        names = parameters(Path(folder) / "it_iter_1.caffemodel")
        return loss, dict(zip(names, history(Path(folder) / "it_iter_1.solverstate")))


def fields(data, start, end):
    """Yield number and place (begin, end) of each field with a length in a message of protobuf's wire format."""
    while start < end:
        key, start = varint(data, start)
        kind = key & 7
        if kind == 0:
            _, start = varint(data, start)
        elif kind == 2:
            length, start = varint(data, start)
            yield key >> 3, start, start + length
            start += length
        else:
            start += {1: 8, 5: 4}[kind]


def varint(data, start):
    value = shift = 0
    while True:
        byte = data[start]
        start += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, start


def mapped(path):
    with open(path, "rb") as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


def history(path):
    """The blobs of a solverstate: field 3, of which the values are field 5."""
    import numpy as np

    data = mapped(path)
    for number, begin, end in fields(data, 0, len(data)):
        if number == 3:
            values = [np.frombuffer(data[b:e], "<f4") for n, b, e in fields(data, begin, end) if n == 5]
            yield np.concatenate(values) if values else np.zeros(0, "<f4")


def parameters(path):
    """The names of a caffemodel's parameters, as conv1_1/0: of each layer (field 100) its name (1) and blobs (7)."""
    data, names = mapped(path), []
    for number, begin, end in fields(data, 0, len(data)):
        if number == 100:
            parts = list(fields(data, begin, end))
            name = next(data[b:e].decode() for n, b, e in parts if n == 1)
            names += [f"{name}/{i}" for i in range(sum(n == 7 for n, _, _ in parts))]
    return names


# --- Comparing -------------------------------------------------------------------------------------------------------


def apart(one, other):
    """By name, how far two histories are apart."""
    import numpy as np

    if [*one] != [*other] or not one:
        raise FailedError(f"the parameters differ: {[*one]} and {[*other]}")
    norm = np.linalg.norm
    return {
        name: float(norm(other[name].astype("f8") - values) / (norm(values.astype("f8")) or 1))
        for name, values in one.items()
    }


def compare(args):
    """Print a line a model and way; whether all are within the tolerance."""
    if args.gpu == "none":
        ways = {"CPU, 2 threads": (None, {"OMP_NUM_THREADS": "2"}, args.tolerance)}
    else:
        ways = {f"GPU {args.gpu}": (args.gpu, {"CAFFE_TF32": "0"}, args.tolerance)}
        if args.tf32:
            ways[f"GPU {args.gpu}, TF32"] = (args.gpu, {"CAFFE_TF32": "1"}, args.tf32_tolerance)
        if args.deterministic:
            ways[f"GPU {args.gpu}, deterministic"] = (args.gpu, {"CAFFE_CUDNN_DETERMINISTIC": "1"}, args.tolerance)
    good = True
    for model in args.models or MODELS:
        reference, values = update(args.caffe, args.nets, model, OMP_NUM_THREADS="1")
        for way, (gpu, environment, tolerance) in ways.items():
            loss, found = update(args.caffe, args.nets, model, gpu, **environment)
            differences = apart(values, found)
            if gpu is None or gpu.isdecimal():  # several print the loss of the first one's share
                differences["loss"] = abs(loss - reference) / abs(reference)
            worst = max(differences, key=differences.get)
            same = True
            if "CAFFE_CUDNN_DETERMINISTIC" in environment:
                _, again = update(args.caffe, args.nets, model, gpu, **environment)
                same = all((again[name] == blob).all() for name, blob in found.items())
            passed = differences[worst] <= tolerance and same
            good = good and passed
            print(
                f"{model}  {way}: loss {loss:.6f} (CPU {reference:.6f}), update apart by at most "
                f"{differences[worst]:.2e} in {worst}{'' if same else ', NOT the same bits twice'}"
                f"{'' if passed else f'  FAILED, {tolerance:g} is allowed'}",
                flush=True,
            )
    return good


def learn(args):
    """Train the first net for a while and test it, both on the GPU; whether it has learnt something."""
    where = [] if args.gpu == "none" else [f"--gpu={args.gpu}"]
    one = [] if args.gpu == "none" else ["--gpu=0" if args.gpu == "all" else f"--gpu={args.gpu.split(',')[0]}"]
    with tempfile.TemporaryDirectory() as folder:
        solver = Path(folder) / "solver.prototxt"
        solver.write_text(
            f'net: "learn.prototxt"\nlr_policy: "fixed"\nbase_lr: 0.01\nmomentum: 0.9\nweight_decay: 0.0005\n'
            f"max_iter: {args.iterations}\ndisplay: 20\nrandom_seed: 1\ntest_iter: 2\ntest_interval: 1000000\n"
            f'test_initialization: false\nsnapshot_prefix: "{folder}/it"\n'
        )
        text = caffe(args.caffe, args.nets, "train", f"--solver={solver}", *where)
        losses = [float(loss) for loss in re.findall(r"Iteration \d+ \(.*loss = (\S+)", text)]
        weights = f"{folder}/it_iter_{args.iterations}.caffemodel"
        text = caffe(
            args.caffe, args.nets, "test", "--model=learn.prototxt", f"--weights={weights}", "--iterations=2", *one
        )
    top1 = float(re.findall(r"\baccuracy = (\S+)", text)[-1])
    change = f"loss {losses[0]:.3f} to {losses[-1]:.3f}"
    print(f"{args.iterations} iterations: {change}, top-1 {100 * top1:.1f} % of 100 images")
    return top1 >= LEAST


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("caffe", nargs="?", type=Path)
    parser.add_argument("nets", type=Path)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--learn", action="store_true")
    parser.add_argument("--gpu", default="0", help="as the caffe program takes it (0), or none")
    parser.add_argument("--tf32", action="store_true", help="compare with TF32 too")
    parser.add_argument("--deterministic", action="store_true", help="compare so too, and twice with itself")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    parser.add_argument("--tf32-tolerance", type=float, default=TF32_TOLERANCE)
    parser.add_argument("--iterations", type=int, default=LEARN, help=f"of --learn ({LEARN})")
    args = parser.parse_args()
    if args.write:
        write(args.nets)
        return 0
    if args.caffe is None or set(args.models) - set(MODELS):
        parser.error("CAFFE, NETS and models of model1 ... model9 are needed, or --write NETS")
    args.caffe, args.nets = args.caffe.resolve(), args.nets.resolve()
    try:
        return 0 if (learn if args.learn else compare)(args) else 1
    except ModuleNotFoundError as error:
        print(f"gpu_models.py: error: {error}: call it with a Python that has numpy", file=sys.stderr)
        return 2
    except FailedError as error:
        print(f"gpu_models.py: error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
