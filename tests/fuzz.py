#!/usr/bin/env python3
"""Fuzz pycaffe: mutated nets, solvers, weights, states, LMDB records and means must load or raise CaffeError.

Each case takes a net of tests/data/fuzz_nets.prototxt, a solver or a file made from them and changes a few fields of a
message, words of a prototxt, or bytes. The result is built, run forward and backward, reshaped, saved and restored in
worker processes with limits on memory and time. A crash, a hang, another exception or an open file fails.

example: tests/fuzz.py --cases 100000
         tests/fuzz.py --seed 3 --case 1234       run one case and show its input

Slow inputs are avoided: sizes between 64 and 2^30, many batches per iteration, and Python layers.
"""

import argparse
import contextlib
import functools
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

if __name__ == "__main__":
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # OpenMP ends the process if it cannot create a thread

import caffe
import cv2
import lmdb
import numpy as np
from caffe.proto import caffe_pb2
from google.protobuf import text_format

NETS = Path(__file__).resolve().parent / "data" / "fuzz_nets.prototxt"
IMAGE = 8  # pixels per side
BROKEN = "@broken@"  # replaced by invalid UTF-8 when a file is written
NUMBERS = [0, 0, 1, 2, 3, 7, 64, -1, -1, -2, -7, 2**30, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, -(2**31), -(2**63)]
FLOATS = [0.0, 1.0, -1.0, 0.5, 2.0, 9.0, 1e-45, 1e38, -1e38, 3.4e38, float("inf"), float("-inf"), float("nan")]
STRINGS = ["", "x", "fc", "label", "no_such_name", "a b", "..", "%s%n", "ä", BROKEN, "long" * 500, "\0", "\n"]
FILLERS = ["gaussian", "xavier", "msra", "bilinear", "positive_unitball", "uniform"]
FILES = [
    *("lmdb", "encoded_lmdb", "empty_lmdb", "images.txt", "windows.txt", "windows_odd.txt", "windows_short.txt"),
    *("windows_empty.txt", "empty.txt", "hdf5.txt", "image1.png", "mean.binaryproto", "small_mean.binaryproto"),
    *("infogain.binaryproto", "trained.caffemodel", "trained.prototxt", "written.h5", "nowhere"),
]
FILE_FIELDS = {"source", "mean_file", "file_name", "weights", "learned_net"}
RECURSIVE = {"NetParameter", "V0LayerParameter"}
LOOPS = {"test_iter", "iter_size", "threads"}  # large values take long without larger arrays
SOLVERS = {  # parameters of each solver type
    "SGD": 'momentum: 0.9 lr_policy: "step" stepsize: 1 gamma: 0.5 weight_decay: 0.01 display: 1 snapshot: 1',
    "Nesterov": 'momentum: 0.9 lr_policy: "multistep" stepvalue: 1 stepvalue: 3 gamma: 0.5 clip_gradients: 1',
    "AdaGrad": 'lr_policy: "inv" gamma: 0.1 power: 0.5 regularization_type: "L1" snapshot_format: HDF5',
    "RMSProp": 'rms_decay: 0.9 lr_policy: "exp" gamma: 0.9 iter_size: 2 test_compute_loss: true',
    "AdaDelta": 'momentum: 0.9 delta: 0.0001 lr_policy: "poly" power: 1 debug_info: false',
    "Adam": 'momentum: 0.9 momentum2: 0.99 lr_policy: "sigmoid" gamma: 0.1 stepsize: 2 average_loss: 2',
}


# --- Mutations -------------------------------------------------------------------------------------------------------
def messages(message):
    """Yield the message and every message inside it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else [value]:
                yield from messages(inner)


@functools.cache
def layer_types():
    return sorted(set(caffe.layer_type_list()) - {"Python"})


def random_value(rng, field, names):
    """A value for a field that is not a message."""
    if field.type == field.TYPE_ENUM:
        return rng.choice(list(field.enum_type.values_by_number))
    if field.type == field.TYPE_BOOL:
        return rng.random() < 0.5
    if field.type in (field.TYPE_STRING, field.TYPE_BYTES):
        choices = {"type": [*layer_types(), *FILLERS], **dict.fromkeys(FILE_FIELDS, FILES)}.get(field.name, names)
        value = rng.choice(choices if choices and rng.random() < 0.7 else STRINGS)
        return value.encode() if field.type == field.TYPE_BYTES else value
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return rng.choice(FLOATS) if rng.random() < 0.7 else rng.uniform(-3, 3)
    extremes = [0, 1, 2, 3, -1] if field.name in LOOPS else NUMBERS
    value = rng.choice(extremes) if rng.random() < 0.6 else rng.randint(-3, 12)
    bits = 32 if field.type in (field.TYPE_INT32, field.TYPE_UINT32) else 64
    signed = field.type in (field.TYPE_INT32, field.TYPE_INT64)
    return min(max(value, -(2 ** (bits - 1)) if signed else 0), 2 ** (bits - signed) - 1)


def add_or_set(rng, message, field, names, depth=0):
    """Set a field, or an element of a repeated one; new messages get a few fields."""
    values = getattr(message, field.name)
    if field.message_type is not None:
        inner = values.add() if field.is_repeated else values
        fields = list(inner.DESCRIPTOR.fields)
        for one in rng.sample(fields, min(len(fields), rng.randint(1, 3))):
            if one.message_type is None or (depth < 2 and one.message_type.name not in RECURSIVE):
                add_or_set(rng, inner, one, names, depth + 1)
    elif not field.is_repeated:
        setattr(message, field.name, random_value(rng, field, names))
    elif values and rng.random() < 0.7:
        values[rng.randrange(len(values))] = random_value(rng, field, names)
    else:
        values.append(random_value(rng, field, names))


def mutate_message(rng, root):
    """Change one thing in the message: set, remove, repeat or add a field, or swap two messages of one type."""
    every = list(messages(root))
    names = sorted({name for message in every if hasattr(message, "top") for name in message.top})
    message = rng.choice(every)
    fields = [field for field, _ in message.ListFields()]
    repeated = [field for field in fields if field.is_repeated]
    kind = rng.random()
    if kind < 0.45 and fields:
        plain = [field for field in fields if field.message_type is None]
        if plain:
            add_or_set(rng, message, rng.choice(plain), names)
    elif kind < 0.6 and fields:
        field = rng.choice(fields)
        if field.is_repeated and rng.random() < 0.8:
            del getattr(message, field.name)[rng.randrange(len(getattr(message, field.name)))]
        else:
            message.ClearField(field.name)
    elif kind < 0.7 and repeated:
        values = getattr(message, rng.choice(repeated).name)
        values.append(rng.choice(list(values)))
    elif kind < 0.9:
        fields_of_type = [  # of a layer, only the parameters of its type
            field
            for field in message.DESCRIPTOR.fields
            if field in fields or message.DESCRIPTOR.name != "LayerParameter" or not field.name.endswith("_param")
        ]
        field = rng.choice(fields_of_type)
        if field.message_type is None or field.message_type.name != "NetParameter":
            add_or_set(rng, message, field, names)
    else:
        alike = [one for one in every if one.DESCRIPTOR is message.DESCRIPTOR]
        alike = [one for one in alike if not contains(message, one) and not contains(one, message)]
        if alike:
            other, copy = rng.choice(alike), type(message)()
            copy.CopyFrom(message)
            message.CopyFrom(other)
            other.CopyFrom(copy)


def contains(outer, inner):
    return any(message is inner for message in messages(outer))


def mutated(rng, message):
    copy = type(message)()
    copy.CopyFrom(message)
    for _ in range(rng.choice([1, 1, 1, 1, 2, 3])):
        mutate_message(rng, copy)
    return copy


def mutate_text(rng, text):
    """Change one thing in a prototxt: its words, a number, a delimiter, its length or a character."""
    words = re.findall(r'"[^"]*"|[\w.+-]+|\s+|.', text, re.DOTALL)
    if not words:
        return text
    i, j = rng.randrange(len(words)), rng.randrange(len(words))
    kind = rng.randrange(7)
    if kind == 0:
        del words[i : i + rng.randint(1, 4)]
    elif kind == 1:
        words.insert(j, words[i])
    elif kind == 2:
        words[i], words[j] = words[j], words[i]
    elif kind == 3:
        numbers = [k for k, word in enumerate(words) if re.fullmatch(r"-?[\d.]+", word)]
        numbers = [k for k in numbers if not LOOPS.intersection(words[max(0, k - 4) : k])]
        words[rng.choice(numbers) if numbers else i] = str(rng.choice(NUMBERS + FLOATS))
    elif kind == 4:
        words.insert(i, rng.choice(["{", "}", '"', ":", "[", "]", "<", ">", "#", "\\", "'", "nan", BROKEN, "\0", "-"]))
    elif kind == 5:
        return text[: rng.randrange(len(text))]
    else:
        at = rng.randrange(len(text))
        character = chr(rng.choice([*range(1, 47), *range(48, 127)]))  # no slash: files stay in this folder
        return text[:at] + character + text[at + rng.randint(0, 1) :]
    return "".join(words)


def mutate_bytes(rng, data):
    """Flip a bit, remove, insert or overwrite bytes."""
    data = bytearray(data)
    kind = rng.randrange(4)
    at = rng.randrange(len(data)) if data else 0
    if kind == 0 and data:
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[at : at + rng.choice([1, 2, 10, len(data)])]
    elif kind == 2:
        data[at:at] = rng.randbytes(rng.randint(1, 5))
    elif data:
        data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
    return bytes(data)


# --- The corpus ------------------------------------------------------------------------------------------------------
def parsed(text, kind=caffe_pb2.NetParameter):
    return text_format.Parse(text, kind())


def prototxt(message_or_text):
    """The bytes of a prototxt file."""
    text = message_or_text if isinstance(message_or_text, str) else text_format.MessageToString(message_or_text)
    return text.encode().replace(BROKEN.encode(), b"\xff\xc3(")


def nets():
    """The nets of the corpus, as {name: prototxt}."""
    blocks = NETS.read_text(encoding="utf-8").split("\n\n")[1:]
    return {re.match('name: "([^"]+)"', block)[1]: block for block in blocks}


def solvers():
    """The solvers of the corpus, as {type: prototxt}; each contains its net."""
    common = 'base_lr: 0.01 max_iter: 4 random_seed: 1 snapshot_prefix: "snap" test_iter: 2 test_interval: 2'
    return {
        kind: f'type: "{kind}" {common} {parameters}\nnet_param {{ {nets()["trained"]} }}\n'
        for kind, parameters in SOLVERS.items()
    }


def write_files(folder):
    """Write the files that the nets name."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, size=(6, 3, IMAGE, IMAGE), dtype=np.uint8)
    for name, encoded, count in (("lmdb", False, 6), ("encoded_lmdb", True, 6), ("empty_lmdb", False, 0)):
        with lmdb.open(str(folder / name), map_size=1 << 20) as environment, environment.begin(write=True) as txn:
            for i in range(count):
                picture = np.ascontiguousarray(images[i].transpose(1, 2, 0))
                data = cv2.imencode(".png", picture)[1].tobytes() if encoded else images[i].tobytes()
                datum = caffe_pb2.Datum(channels=3, height=IMAGE, width=IMAGE, data=data, label=i % 3, encoded=encoded)
                txn.put(b"%08d" % i, datum.SerializeToString())
    for i in range(4):
        cv2.imwrite(str(folder / f"image{i}.png"), images[i].transpose(1, 2, 0))
    windows = "1 0.9 1 1 5 6\n2 0.6 0 0 7 7\n0 0.1 2 2 6 4\n"
    window_file = "".join(f"# {i}\nimage{i}.png\n3\n{IMAGE}\n{IMAGE}\n3\n{windows}" for i in range(4))
    texts = {
        "images.txt": "".join(f"image{i}.png {i % 3}\n" for i in range(4)),
        "windows.txt": window_file,
        "windows_odd.txt": window_file.replace("# 3", "# 70").replace("1 1 5 6", "1 1 -5 60000"),
        "windows_short.txt": window_file[:-30],
        "windows_empty.txt": "# 0\nimage0.png\n3\n8\n8\n0\n",
        "empty.txt": "",
        "hdf5.txt": "written.h5\nwritten.h5\n",
        "trained.prototxt": nets()["trained"],
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    for name, shape in (("mean", (1, 3, IMAGE, IMAGE)), ("infogain", (1, 1, 4, 4)), ("small_mean", (1, 3, 2, 2))):
        values = np.ones(shape, np.float32)
        blob = caffe_pb2.BlobProto(num=1, channels=shape[1], height=shape[2], width=shape[3], data=values.ravel())
        (folder / f"{name}.binaryproto").write_bytes(blob.SerializeToString())


class Corpus:
    """The nets, solvers, weights and states that cases mutate, with their files in the current folder."""

    def __init__(self):
        write_files(Path.cwd())
        caffe.Net(parsed(nets()["hdf5_output"]), caffe.TRAIN).forward()  # writes written.h5
        self.texts, self.solver_texts = nets(), solvers()
        self.nets = {name: parsed(text) for name, text in self.texts.items()}
        self.solvers = {name: parsed(text, caffe_pb2.SolverParameter) for name, text in self.solver_texts.items()}
        caffe.Net("trained.prototxt", caffe.TRAIN).save("trained.caffemodel")
        self.weights = caffe_pb2.NetParameter.FromString(Path("trained.caffemodel").read_bytes())
        self.states = {}
        for name, message in self.solvers.items():
            binary = caffe_pb2.SolverParameter()
            binary.CopyFrom(message)
            binary.snapshot_format, binary.snapshot_prefix = caffe_pb2.SolverParameter.BINARYPROTO, f"kept_{name}"
            solver = caffe.get_solver(binary)
            solver.step(2)
            solver.snapshot()
            state = Path(f"kept_{name}_iter_2.solverstate").read_bytes()
            self.states[name] = caffe_pb2.SolverState.FromString(state)
        self.kept = {path.name: path.read_bytes() for path in Path.cwd().iterdir() if path.is_file()}
        self.folders = {path.name for path in Path.cwd().iterdir() if path.is_dir()}

    def clean(self):
        """Restore the files, so that a case does not depend on the cases before it."""
        for entry in list(os.scandir()):
            if entry.is_file() and entry.name not in self.kept:
                os.unlink(entry.path)
            elif not entry.is_file() and entry.name not in self.folders:
                shutil.rmtree(entry.path)
        for name, data in self.kept.items():
            path = Path(name)
            if not path.is_file() or path.stat().st_size != len(data) or path.read_bytes() != data:
                path.write_bytes(data)


# --- Cases -----------------------------------------------------------------------------------------------------------
class Case:
    """Case `number` of `seed`; running it again does the same. `text` is its mutated input."""

    def __init__(self, corpus, seed, number):
        self.corpus, self.number, self.text = corpus, number, ""
        self.rng = random.Random(f"{seed} {number}")

    def run(self):
        caffe.set_random_seed(self.number % 1000 + 1)
        kinds = [self.net, self.solver, self.weights, self.state, self.records, self.mean, self.lists]
        self.rng.choices(kinds, [60, 12, 10, 8, 4, 3, 3])[0]()

    def net(self):
        name = self.rng.choice(list(self.corpus.nets))
        phase = self.rng.choice([caffe.TRAIN, caffe.TEST])
        source = self._message_or_file(self.corpus.nets[name], self.corpus.texts[name], "net.prototxt")
        if self.rng.random() < 0.1:
            inspect = caffe._caffe._inspect
            inspect.upgrade(source)
            inspect.outline(inspect.resolve(source, phase))
        net = caffe.Net(source, phase)
        if self.rng.random() < 0.1:
            net.share_with(caffe.Net(self.corpus.nets[name], phase))
        run_net(net, self.rng)

    def solver(self):
        name = self.rng.choice(list(self.corpus.solvers))
        source = self._message_or_file(self.corpus.solvers[name], self.corpus.solver_texts[name], "solver.prototxt")
        run_solver(caffe.get_solver(source))

    def weights(self):
        Path("mutated.caffemodel").write_bytes(self._bytes(self.corpus.weights))
        net = caffe.Net("trained.prototxt", self.rng.choice([caffe.TRAIN, caffe.TEST]))
        net.copy_from("mutated.caffemodel")
        run_net(net, self.rng)

    def state(self):
        name = self.rng.choice(list(self.corpus.states))
        Path("mutated.solverstate").write_bytes(self._bytes(self.corpus.states[name]))
        solver = caffe.get_solver(self.corpus.solvers[name])
        before = state_of(solver)
        try:
            solver.restore("mutated.solverstate")
        except caffe.CaffeError as error:
            if state_of(solver) != before:
                raise AssertionError("a failed restore changed the solver") from error
            raise
        run_solver(solver)

    def records(self):
        """Mutated records of an LMDB."""
        source = self.rng.choice(["lmdb", "encoded_lmdb"])
        with lmdb.open(source, readonly=True, lock=False) as environment, environment.begin() as transaction:
            records = list(transaction.cursor())
        with lmdb.open("mutated_lmdb", map_size=1 << 20) as environment, environment.begin(write=True) as transaction:
            for key, value in records:
                changed = self.rng.random() < 0.4
                transaction.put(key, self._bytes(caffe_pb2.Datum.FromString(value)) if changed else value)
        net = parsed(self.corpus.texts[self.rng.choice(["data", "crop_data", "data_mean"])])
        kind = "crop_data_param" if net.layer[0].type == "CropData" else "data_param"
        getattr(net.layer[0], kind).source = "mutated_lmdb"
        run_net(caffe.Net(net, self.rng.choice([caffe.TRAIN, caffe.TEST])), self.rng)

    def mean(self):
        """A mutated mean image or infogain matrix."""
        name = self.rng.choice(["data_mean", "crop_data", "window_data", "infogain"])
        kept = "infogain" if name == "infogain" else "mean"
        blob = caffe_pb2.BlobProto.FromString(Path(f"{kept}.binaryproto").read_bytes())
        Path("mutated.binaryproto").write_bytes(self._bytes(blob))
        text = self.corpus.texts[name].replace(f"{kept}.binaryproto", "mutated.binaryproto")
        run_net(caffe.Net(parsed(text), caffe.TRAIN), self.rng)

    def lists(self):
        """A mutated list of images, windows or HDF5 files."""
        sources = {"windows.txt": "window_data", "images.txt": "image_data", "hdf5.txt": "hdf5_data"}
        name, net = self.rng.choice(list(sources.items()))
        self.text = Path(name).read_text()
        for _ in range(self.rng.choice([1, 1, 2, 4])):
            self.text = mutate_text(self.rng, self.text)
        Path("mutated.txt").write_bytes(prototxt(self.text))
        run_net(caffe.Net(parsed(self.corpus.texts[net].replace(name, "mutated.txt")), caffe.TRAIN), self.rng)

    def _message_or_file(self, message, text, filename):
        """A mutated message, or the name of a prototxt that was mutated as a message or as text."""
        if self.rng.random() < 0.7:
            changed = mutated(self.rng, message)
            self.text = text_format.MessageToString(changed)
            if self.rng.random() < 0.7 and BROKEN not in self.text:
                return changed
            data = prototxt(changed)
        else:
            for _ in range(self.rng.choice([1, 1, 2, 4])):
                text = mutate_text(self.rng, text)
            data = prototxt(text)
        Path(filename).write_bytes(data)
        self.text = data.decode(errors="backslashreplace")
        return filename

    def _bytes(self, message):
        """The serialized message, mutated before or after its serialization."""
        if self.rng.random() < 0.6:
            changed = mutated(self.rng, message)
            self.text = text_format.MessageToString(changed)
            return changed.SerializePartialToString().replace(BROKEN.encode(), b"\xff\xfe\xff\xfe\xff\xfe\xff\xfe")
        data = message.SerializePartialToString()
        for _ in range(self.rng.choice([1, 1, 2, 5])):
            data = mutate_bytes(self.rng, data)
        self.text = repr(data)
        return data


def state_of(solver):
    return solver.iter, [blob.data.tobytes() for blobs in solver.net.params.values() for blob in blobs]


def run_net(net, rng, reshape=True):
    """Run a net forward and backward, write to a blob, reshape an input, save and load."""
    if net.layers and net.layers[0].type == "MemoryData":
        data = net.blobs[net._blob_names[net._top_ids(0)[0]]]
        count = 2 * max(1, data.num)
        net.set_input_arrays(np.zeros((count, *data.shape[1:]), np.float32), np.zeros(count, np.float32))
    one_batch = any(layer.type == "HDF5Output" for layer in net.layers)  # it cannot write a second one
    for _ in range(1 if one_batch else 2):
        net.forward()
    if rng.random() < 0.3 and net.blobs:
        blob = net.blobs[rng.choice(list(net.blobs))]
        if blob.count:
            blob.data.flat[rng.randrange(blob.count)] = rng.choice(FLOATS)
    if rng.random() < 0.8:
        net.backward()
    if reshape and net.inputs and rng.random() < 0.5:
        blob = net.blobs[rng.choice(net.inputs)]
        shape = list(blob.shape)
        if shape:
            shape[rng.randrange(len(shape))] = rng.choice([0, 1, 2, 3, 9])
            blob.reshape(*shape)
            net.reshape() if rng.random() < 0.5 else net.forward()
            with contextlib.suppress(caffe.CaffeError):  # reshaped without a forward pass
                net.backward()
            net.forward()
            net.backward()
    for blobs in net.params.values():
        for blob in blobs:
            assert list(blob.data.shape) == list(blob.diff.shape) == list(blob.shape)
    net.save("saved.caffemodel")
    net.copy_from("saved.caffemodel")
    if rng.random() < 0.3:
        net.save_hdf5("saved.h5", rng.random() < 0.5)
        net.load_hdf5("saved.h5")


def run_solver(solver):
    """Step, snapshot and restore a solver."""
    solver.step(2)
    solver.snapshot()
    state = f"{solver.param.snapshot_prefix}_iter_{solver.iter}.solverstate"
    solver.step(1)
    solver.restore(state if Path(state).exists() else state + ".h5")
    solver.step(1)


# --- Workers ---------------------------------------------------------------------------------------------------------
def work(options, first, last):
    """Run cases first ... last - 1 in this process; report the start and failure of each as lines of JSON."""

    def report(**line):
        os.write(reports, (json.dumps(line) + "\n").encode())

    reports = os.dup(1)
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory(prefix="caffe_fuzz.") as folder:
        os.chdir(folder)
        if options.memory:
            resource.setrlimit(resource.RLIMIT_AS, (options.memory << 20, options.memory << 20))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        corpus = Corpus()
        open_files = len(os.listdir("/proc/self/fd"))
        for number in range(first, last):
            report(start=number)
            signal.setitimer(signal.ITIMER_REAL, options.timeout)  # SIGALRM ends a process that hangs
            result = "loaded"
            try:
                Case(corpus, options.seed, number).run()
            except caffe.CaffeError as error:
                result = "refused" if str(error) else "a CaffeError without text"
            except BaseException:
                result = traceback.format_exc()
            signal.setitimer(signal.ITIMER_REAL, 0)
            corpus.clean()
            if len(os.listdir("/proc/self/fd")) > open_files:
                result = "a file was left open"
                open_files = len(os.listdir("/proc/self/fd"))
            report(end=number, result=result)
        os.chdir("/")


def run_range(options, first, last):
    """Run cases in child processes, a new one after each that dies; return {case: result}."""
    results = {}
    while first < last:
        command = [sys.executable, *(["-S"] if sys.flags.no_site else []), __file__, f"--range={first},{last}"]
        command += [f"--{name}={getattr(options, name)}" for name in ("seed", "memory", "timeout")]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        results.update((line["end"], line["result"]) for line in lines if "end" in line)
        if done.returncode == 0:
            break
        started = [line["start"] for line in lines if "start" in line]
        if not started:
            raise SystemExit(f"fuzz.py: error: a worker failed to start\n{done.stderr[-6000:]}")
        status = signal.Signals(-done.returncode).name if done.returncode < 0 else f"status {done.returncode}"
        report = re.search(r"[^\n]*(runtime error: |ERROR: \w+Sanitizer)", done.stderr)
        last_words = done.stderr[report.start() :][:6000] if report else done.stderr[-6000:]
        results[started[-1]] = f"ended by {status}\n{last_words}"
        first = started[-1] + 1
    return results


def run(options):
    """Run all cases in `jobs` processes at a time; return the exit status."""
    size = -(-options.cases // options.jobs)
    ranges = [(first, min(first + size, options.cases)) for first in range(0, options.cases, size)]
    with ThreadPoolExecutor(options.jobs) as pool:
        results = {}
        for found in pool.map(lambda bounds: run_range(options, *bounds), ranges):
            results.update(found)
    failures = {number: result for number, result in sorted(results.items()) if result not in ("loaded", "refused")}
    for number, result in failures.items():
        print(f"--- case {number} of seed {options.seed}: {result.strip()}")
    loaded, refused = (sum(result == kind for result in results.values()) for kind in ("loaded", "refused"))
    print(f"seed {options.seed}: {loaded} loaded, {refused} refused, {len(failures)} failed")
    return 1 if failures else 0


def repeat(options):
    """Run one case in this process and show its input."""
    with tempfile.TemporaryDirectory(prefix="caffe_fuzz.") as folder:
        os.chdir(folder)
        case = Case(Corpus(), options.seed, options.case)
        try:
            case.run()
            result = "loaded"
        except caffe.CaffeError as error:
            result = f"CaffeError: {error}"
        finally:
            print(case.text)
        print(result)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=5000, help="number of cases (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the mutations (default: 1)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="worker processes (default: one per core)")
    parser.add_argument("--case", type=int, help="run only this case and show its input")
    parser.add_argument("--memory", type=int, default=4096, help="MB per worker, 0: no limit (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=20, help="seconds per case (default: %(default)s)")
    parser.add_argument("--range", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.cases < 1 or options.jobs < 1:
        parser.error("--cases and --jobs must be 1 or more")
    caffe.log_level("fatal")
    if options.range:
        return work(options, *map(int, options.range.split(",")))
    return run(options) if options.case is None else repeat(options)


if __name__ == "__main__":
    sys.exit(main())
