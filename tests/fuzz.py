#!/usr/bin/env python3
"""Feed pycaffe with mutated nets, solvers, weights and states: each must load or raise CaffeError.

A case is a net, a solver, a caffemodel, a solverstate or data of tests/fuzz_corpus.py with a few things changed: fields
dropped, doubled, renamed, numbers made 0, negative, huge or NaN, strings broken, bytes flipped. It is built, run
forward and backward, reshaped, saved, stepped, snapshot and restored, in worker processes with a limit on memory and
time. A crash, an abort, a hang or another exception is a failure; so is a file that is left open.

example: tests/fuzz.py --cases 100000
         tests/fuzz.py --seed 3 --case 1234       run one again, showing its text

Not tried, as they are slow for a good reason: sizes between 64 and 2^30, more than 3 batches in a test or an
iteration, and Python layers. HDF5 files are changed in what they hold, not byte by byte: damaged ones crash in HDF5.
"""

import argparse
import collections
import contextlib
import functools
import mmap
import os
import random
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from pathlib import Path

if __name__ == "__main__":
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a thread that cannot be had for lack of memory ends the process

import caffe
import lmdb
import numpy as np
from caffe.proto import caffe_pb2
from google.protobuf import text_format

import fuzz_corpus

BROKEN = "@broken@"  # stands for bytes that are no UTF-8 until the text is written
NUMBERS = [0, 0, 1, 2, 3, 7, 64, -1, -1, -2, -7, 2**30, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, -(2**31), -(2**63)]
FLOATS = [0.0, 1.0, -1.0, 0.5, 2.0, 3.0, 9.0, 1e-45, 1e38, -1e38, 3.4e38, float("inf"), float("-inf"), float("nan")]
STRINGS = [
    "",
    "x",
    "fc",
    "label",
    "no_such_name",
    "a b",
    "a,b",
    "a.b",
    "..",
    "%s%n",
    "ä",
    BROKEN,
    "long" * 500,
    "\0",
    "\n",
]
FILES = [
    *("lmdb", "encoded_lmdb", "empty_lmdb", "images.txt", "windows.txt", "windows_odd.txt", "windows_short.txt"),
    *("windows_empty.txt", "empty.txt", "hdf5.txt", "image1.png", "mean.binaryproto", "small_mean.binaryproto"),
    *("infogain.binaryproto", "trained.caffemodel", "trained.prototxt", "data1.h5", "written.h5", "nowhere"),
]
FEW = {"test_iter", "iter_size", "threads"}  # work by itself, not by the size of an array


# --- Mutations of messages -------------------------------------------------------------------------------------------
def messages(message):
    """The message and all within it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else [value]:
                yield from messages(inner)


@functools.cache
def layer_types():
    return sorted(set(caffe.layer_type_list()) - {"Python"})


def value_for(rng, field, names):
    """Another value for a field that is no message."""
    if field.type == field.TYPE_ENUM:
        return rng.choice(list(field.enum_type.values_by_number))
    if field.type == field.TYPE_BOOL:
        return rng.random() < 0.5
    if field.type in (field.TYPE_STRING, field.TYPE_BYTES):
        if field.name == "type" and rng.random() < 0.7:
            value = rng.choice(
                [*layer_types(), "gaussian", "xavier", "msra", "bilinear", "positive_unitball", "uniform"]
            )
        elif field.name in ("source", "mean_file", "file_name", "weights", "learned_net") and rng.random() < 0.8:
            value = rng.choice(FILES)
        elif names and rng.random() < 0.6:
            value = rng.choice(names)
        else:
            value = rng.choice(STRINGS)
        return value.encode() if field.type == field.TYPE_BYTES else value
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return rng.choice(FLOATS) if rng.random() < 0.7 else rng.uniform(-3, 3)
    value = (
        rng.choice([0, 1, 2, 3, -1] if field.name in FEW else NUMBERS) if rng.random() < 0.6 else rng.randint(-3, 12)
    )
    low, high = {
        field.TYPE_INT32: (-(2**31), 2**31 - 1),
        field.TYPE_UINT32: (0, 2**32 - 1),
        field.TYPE_INT64: (-(2**63), 2**63 - 1),
        field.TYPE_UINT64: (0, 2**64 - 1),
    }[field.type]
    return min(max(value, low), high)


def set_value(rng, message, field, names):
    value = value_for(rng, field, names)
    if not field.is_repeated:
        setattr(message, field.name, value)
        return
    values = getattr(message, field.name)
    if values and rng.random() < 0.7:
        values[rng.randrange(len(values))] = value
    else:
        values.append(value)


def fill(rng, message, names, depth=0):
    """Set a few fields of an empty message."""
    for field in rng.sample(list(message.DESCRIPTOR.fields), min(len(message.DESCRIPTOR.fields), rng.randint(1, 3))):
        if field.message_type is None:
            set_value(rng, message, field, names)
        elif depth < 2 and field.message_type.name not in ("NetParameter", "V0LayerParameter"):
            inner = getattr(message, field.name)
            fill(rng, inner.add() if field.is_repeated else inner, names, depth + 1)


def own_parameters(message):
    """Of a layer the fields that its type reads and those of all types; of others all."""
    fields = list(message.DESCRIPTOR.fields)
    if message.DESCRIPTOR.name != "LayerParameter":
        return fields
    set_ones = {field.name for field, _ in message.ListFields()}
    return [field for field in fields if not field.name.endswith("_param") or field.name in set_ones]


def mutate_message(rng, root):
    """Change one thing in the message."""
    every = list(messages(root))
    names = sorted({name for message in every if hasattr(message, "top") for name in message.top})
    inner = [message for message in every if message.DESCRIPTOR.name.endswith("Parameter")]
    message = rng.choice(inner[1:] if inner[1:] and rng.random() < 0.6 else every)
    fields = [field for field, _ in message.ListFields()]
    kind = rng.random()
    if kind < 0.45 and fields:  # another value
        field = rng.choice(fields)
        if field.message_type is None:
            set_value(rng, message, field, names)
        else:
            mutate_message(
                rng,
                rng.choice(list(getattr(message, field.name))) if field.is_repeated else getattr(message, field.name),
            )
    elif kind < 0.6 and fields:  # dropped
        field = rng.choice(fields)
        if field.is_repeated and rng.random() < 0.8:
            del getattr(message, field.name)[rng.randrange(len(getattr(message, field.name)))]
        else:
            message.ClearField(field.name)
    elif kind < 0.7 and any(field.is_repeated for field in fields):  # doubled
        field = rng.choice([field for field in fields if field.is_repeated])
        values = getattr(message, field.name)
        if field.message_type is None:
            values.append(rng.choice(list(values)))
        else:
            values.add().CopyFrom(rng.choice(list(values)))
    elif kind < 0.9:  # one more
        field = rng.choice(own_parameters(message))
        if field.message_type is None:
            set_value(rng, message, field, names)
        elif field.message_type.name != "NetParameter":
            inner = getattr(message, field.name)
            fill(rng, inner.add() if field.is_repeated else inner, names)
    else:  # two of a kind exchanged
        alike = [other for other in every if other.DESCRIPTOR is message.DESCRIPTOR and other is not message]
        alike = [other for other in alike if not contains(message, other) and not contains(other, message)]
        if alike:
            other, copy = rng.choice(alike), type(message)()
            copy.CopyFrom(message)
            message.CopyFrom(other)
            other.CopyFrom(copy)


def contains(outer, inner):
    return any(message is inner for message in messages(outer))


# --- Mutations of text and bytes -------------------------------------------------------------------------------------
def mutate_text(rng, text):
    """Change one thing in a prototxt, by its words."""
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
        number = str(rng.choice(NUMBERS + FLOATS))
        numbers = [k for k, word in enumerate(words) if re.fullmatch(r"-?[\d.]+", word) and not few(words, k)]
        words[rng.choice(numbers) if numbers else i] = number
    elif kind == 4:
        words.insert(i, rng.choice(["{", "}", '"', ":", "[", "]", "<", ">", "#", "\\", "'", "nan", BROKEN, "\0", "-"]))
    elif kind == 5:
        return text[: rng.randrange(len(text))]
    else:
        letter = rng.randrange(len(text))
        # no slash: files stay in this folder
        return text[:letter] + chr(rng.choice([*range(1, 47), *range(48, 127)])) + text[letter + rng.randint(0, 1) :]
    return "".join(words)


def few(words, k):
    return any(word in FEW for word in words[max(0, k - 4) : k])


def mutate_bytes(rng, data):
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


def mutate_tree(rng, tree):
    """Change one thing in what an HDF5 file holds."""
    names = list(tree)
    if not names:
        tree["more"] = np.zeros(2, np.float32)
        return
    name = rng.choice(names)
    value = tree[name]
    if isinstance(value, dict) and rng.random() < 0.8:
        mutate_tree(rng, value)
        return
    kind = rng.randrange(6)
    if kind == 0:
        del tree[name]
    elif kind == 1:
        tree[rng.choice(["0", "7", "x", "history", "data"])] = tree.pop(name)
    elif kind == 2:
        tree[name] = rng.choice([b"", b"text", b"trained.caffemodel", b"x" * 1000])
    elif kind == 3:
        tree[name] = np.array(rng.choice([[-1], [0], [2**31 - 1], [1] * 500]), np.int32)
    elif kind == 4:
        tree[name] = np.ones([rng.randint(0, 4) for _ in range(rng.randint(0, 5))], np.float32)
    else:
        tree[name] = {"0": np.zeros(1, np.float32)}


# --- Cases -----------------------------------------------------------------------------------------------------------
class Corpus:
    """What cases start from; the folder must be the current one."""

    def __init__(self, hdf5):
        fuzz_corpus.write_files(Path.cwd())
        for i in (1, 2):
            rows = {"data": np.ones((4, 2, 3), np.float32), "label": np.zeros((4,), np.float32)}
            hdf5.write(f"data{i}.h5", rows)
        self.rows = rows
        self.nets = {name: parsed(text, caffe_pb2.NetParameter()) for name, text in fuzz_corpus.nets().items()}
        self.net_texts = fuzz_corpus.nets()
        net = caffe.Net("trained.prototxt", caffe.TRAIN)
        net.save("trained.caffemodel")
        self.weights = caffe_pb2.NetParameter.FromString(Path("trained.caffemodel").read_bytes())
        self.weight_tree = fuzz_corpus.blobs(net)
        # what releases of 2014 wrote
        self.old_weights = caffe_pb2.NetParameter(name="old")
        for layer in self.weights.layer:
            if layer.type in ("Convolution", "InnerProduct"):
                old = self.old_weights.layers.add(
                    name=layer.name, type="CONVOLUTION" if layer.type == "Convolution" else "INNER_PRODUCT"
                )
                for blob in layer.blobs:
                    shape = [1] * (4 - len(blob.shape.dim)) + list(blob.shape.dim)
                    sizes = dict(zip(("num", "channels", "height", "width"), shape))
                    old.blobs.add(data=blob.data, **sizes)
        self.solver_texts = fuzz_corpus.solvers()
        self.solvers = {name: parsed(text, caffe_pb2.SolverParameter()) for name, text in self.solver_texts.items()}
        self.states, self.state_trees = {}, {}
        for name, solver in self.solvers.items():
            binary = caffe_pb2.SolverParameter()
            binary.CopyFrom(solver)
            binary.snapshot_format, binary.snapshot_prefix = caffe_pb2.SolverParameter.BINARYPROTO, f"kept_{name}"
            trained = caffe.get_solver(binary)
            trained.step(2)
            trained.snapshot()
            state = caffe_pb2.SolverState.FromString(Path(f"kept_{name}_iter_2.solverstate").read_bytes())
            self.states[name] = state
            self.state_trees[name] = {
                "iter": np.array([2], np.int32),
                "current_step": np.array([0], np.int32),
                "learned_net": state.learned_net.encode(),
                "history": {
                    str(i): np.array(blob.data, np.float32).reshape(list(blob.shape.dim))
                    for i, blob in enumerate(state.history)
                },
            }

        self.kept = {path.name: path.read_bytes() for path in Path.cwd().iterdir() if path.is_file()}
        self.folders = {path.name for path in Path.cwd().iterdir() if path.is_dir()}
        self.stamps = {name: stamp(os.stat(name)) for name in self.kept}

    def clean(self):
        """Take away what the last case has written: the next one finds the same files, whichever went before."""
        for entry in list(os.scandir()):
            if entry.name in self.kept and stamp(entry.stat()) == self.stamps[entry.name]:
                continue
            if entry.is_file():
                os.unlink(entry.path)
            elif entry.name not in self.folders:
                shutil.rmtree(entry.path)
        for name, data in self.kept.items():
            if not os.path.exists(name):
                Path(name).write_bytes(data)
                self.stamps[name] = stamp(os.stat(name))


def stamp(status):
    return status.st_mtime_ns, status.st_size, status.st_ino


def parsed(text, message):
    return text_format.Parse(text, message)


def mutated(rng, message):
    copy = type(message)()
    copy.CopyFrom(message)
    for _ in range(rng.choice([1, 1, 1, 1, 2, 3])):
        mutate_message(rng, copy)
    return copy


def copied(tree):
    return {name: copied(value) if isinstance(value, dict) else value for name, value in tree.items()}


def prototxt(message_or_text):
    """The bytes of a prototxt file."""
    text = message_or_text
    if not isinstance(text, str):
        text = text_format.MessageToString(text)
    return text.encode().replace(BROKEN.encode(), b"\xff\xc3(")


def broken(message):
    """Whether the message stands for text that no message in Python can hold."""
    return BROKEN.encode() in message.SerializePartialToString()


def source(rng, message, text, filename):
    """A mutated message, or its prototxt in a file, mutated as a message or as text; and what to show of it."""
    if rng.random() < 0.7:
        changed = mutated(rng, message)
        if rng.random() < 0.7 and not broken(changed):
            return changed, text_format.MessageToString(changed)
        data = prototxt(changed)
    else:
        for _ in range(rng.choice([1, 1, 2, 4])):
            text = mutate_text(rng, text)
        data = prototxt(text)
    Path(filename).write_bytes(data)
    return filename, data.decode(errors="backslashreplace")


class Case:
    """Case `number` of `seed`: always the same."""

    def __init__(self, corpus, hdf5, seed, number):
        self.corpus, self.hdf5 = corpus, hdf5
        self.rng = random.Random(f"{seed} {number}")
        self.number = number
        self.text = ""

    def run(self):
        caffe.set_random_seed(self.number % 1000 + 1)
        kinds = {
            self.net: 57,
            self.solver: 12,
            self.weights: 8,
            self.state: 8,
            self.hdf5_weights: 4,
            self.hdf5_state: 3,
            self.hdf5_data: 2,
            self.datums: 2,
            self.mean: 2,
            self.lists: 2,
        }
        self.rng.choices(list(kinds), list(kinds.values()))[0]()

    def net(self):
        name = self.rng.choice(list(self.corpus.nets))
        phase = self.rng.choice([caffe.TRAIN, caffe.TEST])
        source_, self.text = source(self.rng, self.corpus.nets[name], self.corpus.net_texts[name], "net.prototxt")
        if self.rng.random() < 0.1:
            inspect_net(source_, phase)
        net = caffe.Net(source_, phase)
        if self.rng.random() < 0.1:
            net.share_with(caffe.Net(self.corpus.nets[name], phase))
        run_net(net, self.rng)

    def solver(self):
        name = self.rng.choice(list(self.corpus.solvers))
        message, text = self.corpus.solvers[name], self.corpus.solver_texts[name]
        source_, self.text = source(self.rng, message, text, "solver.prototxt")
        run_solver(caffe.get_solver(source_))

    def weights(self):
        message = self.rng.choice([self.corpus.weights, self.corpus.old_weights])
        Path("mutated.caffemodel").write_bytes(self._binary(message))
        net = caffe.Net("trained.prototxt", self.rng.choice([caffe.TRAIN, caffe.TEST]))
        net.copy_from("mutated.caffemodel")
        run_net(net, self.rng)

    def state(self):
        name = self.rng.choice(list(self.corpus.states))
        Path("mutated.solverstate").write_bytes(self._binary(self.corpus.states[name]))
        self._restore(name, "mutated.solverstate")

    def hdf5_weights(self):
        self._tree("mutated.h5", self.corpus.weight_tree)
        net = caffe.Net("trained.prototxt", caffe.TRAIN)
        net.copy_from("mutated.h5")
        run_net(net, self.rng)

    def hdf5_state(self):
        name = self.rng.choice(list(self.corpus.states))
        self._tree("mutated.solverstate.h5", self.corpus.state_trees[name])
        self._restore(name, "mutated.solverstate.h5")

    def hdf5_data(self):
        self._tree("mutated_data.h5", self.corpus.rows)
        Path("mutated.txt").write_text(self.rng.choice(["mutated_data.h5\n", "data1.h5\nmutated_data.h5\n"]))
        net = self._copy("hdf5_data")
        net.layer[0].hdf5_data_param.source = "mutated.txt"
        del net.layer[1]  # it would write over the same names again
        run_net(caffe.Net(net, caffe.TRAIN), self.rng)

    def datums(self):
        """Records of an LMDB."""
        name = self.rng.choice(["lmdb", "encoded_lmdb"])
        with lmdb.open(name, readonly=True, lock=False) as environment, environment.begin() as transaction:
            records = list(transaction.cursor())
        with lmdb.open("mutated_lmdb", map_size=1 << 20) as environment, environment.begin(write=True) as transaction:
            for key, value in records:
                changed = self.rng.random() < 0.4
                transaction.put(key, self._binary(caffe_pb2.Datum.FromString(value)) if changed else value)
        net = self._copy(self.rng.choice(["data", "crop_data", "data_mean"]))
        parameter = net.layer[0].crop_data_param if net.layer[0].type == "CropData" else net.layer[0].data_param
        parameter.source = "mutated_lmdb"
        run_net(caffe.Net(net, self.rng.choice([caffe.TRAIN, caffe.TEST])), self.rng)

    def mean(self):
        """Means and matrices."""
        name = self.rng.choice(["data_mean", "crop_data", "window_data", "infogain"])
        kept = "infogain" if name == "infogain" else "mean"
        blob = caffe_pb2.BlobProto.FromString(Path(f"{kept}.binaryproto").read_bytes())
        Path("mutated.binaryproto").write_bytes(self._binary(blob))
        text = text_format.MessageToString(self._copy(name)).replace(f"{kept}.binaryproto", "mutated.binaryproto")
        run_net(caffe.Net(parsed(text, caffe_pb2.NetParameter()), caffe.TRAIN), self.rng)

    def lists(self):
        """Lists of images, windows and HDF5 files."""
        name = self.rng.choice(["windows.txt", "images.txt", "hdf5.txt"])
        self.text = Path(name).read_text()
        for _ in range(self.rng.choice([1, 1, 2, 4])):
            self.text = mutate_text(self.rng, self.text)
        Path("mutated.txt").write_bytes(prototxt(self.text))
        net = self._copy({"windows.txt": "window_data", "images.txt": "image_data", "hdf5.txt": "hdf5_data"}[name])
        text = text_format.MessageToString(net).replace(name, "mutated.txt")
        run_net(caffe.Net(parsed(text, caffe_pb2.NetParameter()), caffe.TRAIN), self.rng)

    def _copy(self, name):
        net = caffe_pb2.NetParameter()
        net.CopyFrom(self.corpus.nets[name])
        return net

    def _binary(self, message):
        if self.rng.random() < 0.6:
            changed = mutated(self.rng, message)
            self.text = text_format.MessageToString(changed)
            return changed.SerializePartialToString().replace(BROKEN.encode(), b"\xff\xfe\xff\xfe\xff\xfe\xff\xfe")
        data = message.SerializePartialToString()
        for _ in range(self.rng.choice([1, 1, 2, 5])):
            data = mutate_bytes(self.rng, data)
        self.text = repr(data)
        return data

    def _tree(self, filename, tree):
        tree = copied(tree)
        for _ in range(self.rng.choice([1, 1, 2, 3])):
            mutate_tree(self.rng, tree)
        self.text = repr(tree)
        self.hdf5.write(filename, tree)

    def _restore(self, name, filename):
        solver = caffe.get_solver(self.corpus.solvers[name])
        before = state_of(solver)
        try:
            solver.restore(filename)
        except caffe.CaffeError as error:
            if state_of(solver) != before:
                raise AssertionError("the solver has changed though it could not be restored") from error
            raise
        run_solver(solver)


def state_of(solver):
    weights = [blob.data.tobytes() for blobs in solver.net.params.values() for blob in blobs]
    return solver.iter, weights


def inspect_net(source_, phase):
    """What tools ask of a net without running it."""
    inspect = caffe._caffe._inspect
    if isinstance(source_, str):
        inspect.places(Path(source_).read_bytes(), "NetParameter", source_)
    inspect.upgrade(source_)
    inspect.outline(inspect.resolve(source_, phase))


def run_net(net, rng, reshape=True):
    """All that is done with a net."""
    if net.layers and net.layers[0].type == "MemoryData":
        data = net.blobs[net._blob_names[net._top_ids(0)[0]]]
        net.set_input_arrays(
            np.zeros((2 * max(1, data.num), *data.shape[1:]), np.float32), np.zeros(2 * max(1, data.num), np.float32)
        )
    once = any(layer.type == "HDF5Output" for layer in net.layers)  # writes no second batch
    for _ in range(1 if once else 2):
        net.forward()
    if rng.random() < 0.3 and net.blobs:  # as a person may write into any blob
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
            with contextlib.suppress(caffe.CaffeError):  # reshaped and not run
                net.backward()
            net.forward()
            net.backward()
    for name, blobs in net.params.items():
        assert isinstance(name, str)
        for blob in blobs:
            assert list(blob.data.shape) == list(blob.diff.shape) == list(blob.shape)
    net.save("saved.caffemodel")
    net.copy_from("saved.caffemodel")
    if rng.random() < 0.3:
        net.save_hdf5("saved.h5", rng.random() < 0.5)
        net.load_hdf5("saved.h5")


def run_solver(solver):
    """All that is done with a solver."""
    solver.step(2)
    solver.snapshot()
    prefix = f"{solver.param.snapshot_prefix}_iter_{solver.iter}.solverstate"
    state = prefix if Path(prefix).exists() else prefix + ".h5"
    solver.step(1)
    solver.restore(state)
    solver.step(1)


# --- Workers ---------------------------------------------------------------------------------------------------------
Failure = collections.namedtuple("Failure", "case reason text")


class Worker:
    """A process that runs every `step`th case from `first` on, and a new one where it dies."""

    COUNTS = struct.Struct("qdqq")  # the case under way, since when, loaded, refused

    def __init__(self, options, first, step, folder):
        self.options, self.next, self.step, self.folder = options, first, step, folder
        self.shared = mmap.mmap(-1, self.COUNTS.size)
        self.report(first, 0, 0)
        self.log = Path(f"{folder}.log")
        self.failures, self.done = [], False
        self.start()

    def report(self, case, loaded, refused):
        self.shared[:] = self.COUNTS.pack(case, time.monotonic(), loaded, refused)

    def read(self):
        return self.COUNTS.unpack(self.shared[:])

    def start(self):
        self.failed = Path(f"{self.folder}.failures")
        self.failed.write_text("")
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                self.work()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)

    def work(self):
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        self.folder.mkdir(exist_ok=True)
        os.chdir(self.folder)
        if self.options.memory:
            limit = self.options.memory << 20
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        hdf5 = fuzz_corpus.Hdf5()
        corpus = Corpus(hdf5)
        _, _, loaded, refused = self.read()
        open_before = len(os.listdir("/proc/self/fd"))
        for number in range(self.next, self.options.cases, self.step):
            self.report(number, loaded, refused)
            case = Case(corpus, hdf5, self.options.seed, number)
            try:
                case.run()
                loaded += 1
            except caffe.CaffeError as error:
                refused += 1
                if not str(error):
                    self.fail(number, "a CaffeError without text", case.text)
            except BaseException:
                self.fail(number, traceback.format_exc(), case.text)
            corpus.clean()
            if hdf5.open_objects() > 0:
                self.fail(number, f"{hdf5.open_objects()} objects of HDF5 files left open", case.text)
                break
            if len(os.listdir("/proc/self/fd")) > open_before:
                self.fail(number, "files left open: " + " ".join(map(name_of, os.listdir("/proc/self/fd"))), case.text)
                break
        else:
            number += self.step
        self.report(number, loaded, refused)

    def fail(self, number, reason, text):
        with open(self.failed, "a") as file:
            file.write(repr(tuple(Failure(number, reason, text))) + "\n")

    def poll(self):
        """Look after the process; True while there is work left."""
        if self.done:
            return False
        case, since, *_ = self.read()
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0 and time.monotonic() - since > self.options.timeout:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.end(case, f"no end after {self.options.timeout:g} seconds")
        elif pid != 0:
            signal_ = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            reason = signal.Signals(signal_).name if signal_ else f"exit status {os.WEXITSTATUS(status)}"
            self.end(case, "" if status == 0 else f"ended by {reason}\n{self.last_words()}")
        return not self.done

    def last_words(self):
        """What it wrote: of a sanitizer's report the beginning, else the end."""
        text = self.log.read_text(errors="replace")
        report = re.search(r"[^\n]*(runtime error: |ERROR: \w+Sanitizer)", text)
        return text[report.start() :][:6000] if report else text[-6000:]

    def end(self, case, reason):
        """The process is gone: note why, and go on behind its case."""
        failures = [Failure(*eval(line)) for line in self.failed.read_text().splitlines()]
        self.failures += failures
        if reason:
            self.failures.append(Failure(case, reason, ""))
        stopped = reason or (failures and failures[-1].case == case)
        self.next = case + self.step if stopped else self.options.cases
        self.done = self.next >= self.options.cases
        if not self.done:
            _, _, loaded, refused = self.read()
            self.report(self.next, loaded, refused)
            self.start()


def name_of(descriptor):
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return descriptor


def run(options):
    folder = Path(tempfile.mkdtemp(prefix="caffe_fuzz."))
    try:
        begin = time.monotonic()
        workers = [Worker(options, i, options.jobs, folder / str(i)) for i in range(options.jobs)]
        while sum(worker.poll() for worker in workers) > 0:
            time.sleep(0.05)
            if sum(len(worker.failures) for worker in workers) >= options.stop:
                break
        for worker in workers:
            if not worker.done:
                os.kill(worker.pid, signal.SIGKILL)
                os.waitpid(worker.pid, 0)
        failures = sorted(failure for worker in workers for failure in worker.failures)
        loaded, refused = (sum(worker.read()[i] for worker in workers) for i in (2, 3))
        for failure in failures:
            print(f"--- case {failure.case} of seed {options.seed}: {failure.reason.strip()}")
        seconds = time.monotonic() - begin
        print(
            f"seed {options.seed}: {loaded} loaded, {refused} refused, {len(failures)} failed, "
            f"{seconds:.0f} seconds, {(loaded + refused) / seconds:.0f} cases a second"
        )
        return 1 if failures else 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def repeat(options):
    """One case, here, with its text."""
    folder = tempfile.mkdtemp(prefix="caffe_fuzz.")
    os.chdir(folder)
    try:
        hdf5 = fuzz_corpus.Hdf5()
        case = Case(Corpus(hdf5), hdf5, options.seed, options.case)
        if options.memory:
            resource.setrlimit(resource.RLIMIT_AS, (options.memory << 20, options.memory << 20))
        try:
            case.run()
        except caffe.CaffeError as error:
            print(case.text)
            print(f"CaffeError: {error}")
        else:
            print(case.text)
            print("loaded")
        return 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=5000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="which ones: those of another seed differ (default: 1)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="worker processes (default: one a core)")
    parser.add_argument("--case", type=int, help="run this one alone, here, and show its text")
    parser.add_argument("--memory", type=int, default=4096, help="MB a worker may use; 0: any (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=20, help="seconds for a case (default: %(default)s)")
    parser.add_argument("--stop", type=int, default=20, help="end after so many failures (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.cases < 1 or options.jobs < 1:
        parser.error("--cases and --jobs must be 1 or more")
    caffe.log_level("fatal")
    return run(options) if options.case is None else repeat(options)


if __name__ == "__main__":
    sys.exit(main())
