#!/usr/bin/env python3
"""Compare nets on a GPU with the CPU, by the caffe program alone: the update of each parameter in one iteration.

    tests/gpu_models.py --write NETS            write the nets and a small data set (needs .venv)
    tests/gpu_models.py CAFFE NETS [MODEL ...]  compare; needs only numpy, the program and that folder
    tests/gpu_models.py CAFFE NETS --learn      train the first net on the GPU, then test it there and on the CPU
    tests/gpu_models.py CAFFE NETS --gpu none   compare the CPU with two threads with the CPU with one

The update is the solver's history after the first iteration. The difference of a blob is the norm of its values'
differences over the norm of the CPU's. The nets have no dropout, whose masks differ, and a batch of 8, which --gpu all
or --gpu 0,1,... divides between GPUs.

Exits with 0 if all differences are within --tolerance and --tf32-tolerance, otherwise with 1.
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
BATCH, LEARN_BATCH, LEARN = 8, 40, 200  # images, images, iterations
# Rounding changes the decisions of ReLU and pooling. The CPU's updates differ from float64 by up to 2e-2 (Model 9, with
# Winograd's algorithm, which cuDNN also uses), and with TF32 by up to 1.2e-1. Errors are as large as the update itself.
TOLERANCE, TF32_TOLERANCE = 1e-1, 4e-1


# --- Writing ---------------------------------------------------------------------------------------------------------


def write(folder):
    """Write nets and data with paths relative to the folder."""
    from caffe.proto import caffe_pb2

    from tiny_imagenet.data import convert, sample
    from tiny_imagenet.models import nets, solvers, zoo

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        sample.write(Path(temporary) / "sample", train=400, val=100, test=10, seed=1)
        convert.convert(Path(temporary) / "sample", folder / "data", workers=1, seed=1)
    for name in ("train_screened", "test"):  # not used by these nets
        shutil.rmtree(folder / "data" / f"{name}.lmdb")
    for name in zoo.MODELS:
        net = nets.read(ROOT / "prototxt" / name / "train_val.prototxt")
        solver = solvers.read(ROOT / "prototxt" / name / "solver.prototxt")
        if name == next(iter(zoo.MODELS)):
            (folder / "learn.prototxt").write_text(nets.to_text(_fitted(net, LEARN_BATCH, nets)))
        for layer in [*net.layer]:
            if layer.type == "Dropout" or any(rule.phase == caffe_pb2.TEST for rule in layer.include):
                net.layer.remove(layer)
        (folder / f"{name}.prototxt").write_text(nets.to_text(_fitted(net, BATCH, nets)))
        rates = "".join(f"{key}: {getattr(solver, key):g}\n" for key in ("base_lr", "momentum", "weight_decay"))
        (folder / f"{name}.rates").write_text(rates)


def _fitted(net, batch, nets):
    """A copy of a net that reads data/ with this batch."""
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
    """Run the program in the folder of the nets and return its output."""
    settings = {**os.environ, "GLOG_logtostderr": "1", "GLOG_minloglevel": "0", **environment}
    command = [str(program), *map(str, arguments)]
    done = subprocess.run(command, cwd=nets, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise FailedError(
            f"{' '.join(command)} ended with status {done.returncode}: {done.stdout.strip().splitlines()[-1]}"
        )
    return done.stdout


def update(program, nets, model, gpu=None, **environment):
    """Return the loss of the first iteration and the history after it, as {parameter: values}."""
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
    """Yield number, start and end of each length-delimited field of a serialized protobuf message."""
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
    """Yield the blobs of a solverstate: field 3, with their values in field 5."""
    import numpy as np

    data = mapped(path)
    for number, begin, end in fields(data, 0, len(data)):
        if number == 3:
            values = [np.frombuffer(data[b:e], "<f4") for n, b, e in fields(data, begin, end) if n == 5]
            yield np.concatenate(values) if values else np.zeros(0, "<f4")


def parameters(path):
    """Return the names of a caffemodel's parameters, such as conv1_1/0; layers are field 100, name 1 and blobs 7."""
    data, names = mapped(path), []
    for number, begin, end in fields(data, 0, len(data)):
        if number == 100:
            parts = list(fields(data, begin, end))
            name = next(data[b:e].decode() for n, b, e in parts if n == 1)
            names += [f"{name}/{i}" for i in range(sum(n == 7 for n, _, _ in parts))]
    return names


# --- Comparing -------------------------------------------------------------------------------------------------------


def apart(one, other):
    """Return the relative difference of two histories, as {parameter: difference}."""
    import numpy as np

    if [*one] != [*other] or not one:
        raise FailedError(f"the parameters differ: {[*one]} and {[*other]}")
    norm = np.linalg.norm
    return {
        name: float(norm(other[name].astype("f8") - values) / (norm(values.astype("f8")) or 1))
        for name, values in one.items()
    }


def compare(args):
    """Print a line per model and setting; return whether all are within the tolerance."""
    if args.gpu == "none":
        ways = {"CPU, 2 threads": (None, {"OMP_NUM_THREADS": "2"}, args.tolerance)}
    else:
        ways = {f"GPU {args.gpu}": (args.gpu, {"CAFFE_TF32": "0"}, args.tolerance)}
        if args.tf32:
            ways[f"GPU {args.gpu}, TF32"] = (args.gpu, {"CAFFE_TF32": "1"}, args.tf32_tolerance)
        if args.deterministic:
            ways[f"GPU {args.gpu}, deterministic"] = (args.gpu, {"CAFFE_CUDNN_DETERMINISTIC": "1"}, args.tolerance)
    good = True
    for model in args.models or models_of(args.nets):
        reference, values = update(args.caffe, args.nets, model, OMP_NUM_THREADS="1")
        for way, (gpu, environment, tolerance) in ways.items():
            loss, found = update(args.caffe, args.nets, model, gpu, **environment)
            differences = apart(values, found)
            if gpu is None or gpu.isdecimal():  # several GPUs print the loss of the first one's images
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
                f"{differences[worst]:.2e} in {worst}{'' if same else ', NOT reproducible'}"
                f"{'' if passed else f'  FAILED, expected at most {tolerance:g}'}",
                flush=True,
            )
    return good


def learn(args):
    """Train the first net on the GPU; return whether its test there gives the loss of a test on the CPU."""
    where = [] if args.gpu == "none" else [f"--gpu={args.gpu}"]
    first = [] if args.gpu == "none" else ["--gpu=0" if args.gpu == "all" else f"--gpu={args.gpu.split(',')[0]}"]
    with tempfile.TemporaryDirectory() as folder:
        solver = Path(folder) / "solver.prototxt"
        solver.write_text(
            f'net: "learn.prototxt"\nlr_policy: "fixed"\nbase_lr: 0.01\nmomentum: 0.9\nweight_decay: 0.0005\n'
            f"max_iter: {args.iterations}\ndisplay: 20\nrandom_seed: 1\ntest_iter: 2\ntest_interval: 1000000\n"
            f'test_initialization: false\nsnapshot_prefix: "{folder}/it"\n'
        )
        text = caffe(args.caffe, args.nets, "train", f"--solver={solver}", *where)
        train_losses = [float(loss) for loss in re.findall(r"Iteration \d+ \(.*loss = (\S+)", text)]
        files = "--model=learn.prototxt", f"--weights={folder}/it_iter_{args.iterations}.caffemodel"
        tests = [caffe(args.caffe, args.nets, "test", *files, "--iterations=2", *gpu) for gpu in (first, [])]
    (on_gpu, on_cpu), top1 = [float(re.findall(r"\bloss = (\S+)", text)[-1]) for text in tests], accuracy(tests[0])
    print(
        f"{args.iterations} iterations: loss {train_losses[0]:.3f} to {train_losses[-1]:.3f}, top-1 {100 * top1:.1f} % "
        f"of 100 images; test loss {on_gpu:.5f} on the GPU, {on_cpu:.5f} on the CPU"
    )
    return abs(on_gpu - on_cpu) <= args.tolerance * abs(on_cpu)


def accuracy(text):
    return float(re.findall(r"\baccuracy = (\S+)", text)[-1])


def models_of(nets):
    return sorted(path.stem for path in nets.glob("*.rates"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("caffe", nargs="?", type=Path)
    parser.add_argument("nets", type=Path)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--learn", action="store_true")
    parser.add_argument("--gpu", default="0", help="--gpu of the caffe program, or none (default: 0)")
    parser.add_argument("--tf32", action="store_true", help="also compare with TF32")
    parser.add_argument("--deterministic", action="store_true", help="also compare deterministic runs, and two of them")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    parser.add_argument("--tf32-tolerance", type=float, default=TF32_TOLERANCE)
    parser.add_argument("--iterations", type=int, default=LEARN, help=f"iterations of --learn (default: {LEARN})")
    args = parser.parse_args()
    if args.write:
        write(args.nets)
        return 0
    if args.caffe is None or set(args.models) - set(models_of(args.nets)):
        parser.error("expected CAFFE, NETS and models of NETS, or --write NETS")
    args.caffe, args.nets = args.caffe.resolve(), args.nets.resolve()
    try:
        return 0 if (learn if args.learn else compare)(args) else 1
    except ModuleNotFoundError as error:
        print(f"gpu_models.py: error: {error}: run it with a Python that has numpy", file=sys.stderr)
        return 2
    except FailedError as error:
        print(f"gpu_models.py: error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
