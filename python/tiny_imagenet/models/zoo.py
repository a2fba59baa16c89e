"""The paper's nine models as nine rows (Table 1 and section 5.2.1). Adding a model is adding a row.

A row names what differs from the defaults; everything else (layer names, sizes, depth, parameter count) is derived
and checked once. Where the paper leaves a point open, the reading taken is marked with the point's letter in
prototxt/README.md.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from tiny_imagenet.errors import NetError, UnknownModelError

ACTIVATIONS = ("ReLU", "PReLU", "LReLU")
DRAWS = ("UNIFORM", "TEN_CROP")
LR_SCHEDULES = ("plateau", "cosine")
IMAGE = 64  # side of a Tiny ImageNet image in pixels
TRAIN_IMAGES = 100_000
VAL_IMAGES = 10_000
_MOST = 2**31 - 1  # what Caffe's int32 fields hold, and the values in one blob

# The numbers that a model can have: from, to; an open end is allowed up to but not itself.
_RANGES = {
    "drop_after_stage": (0, _MOST),
    "base_lr": (0, 10**6),
    "weight_decay": (0, 10**6),
    "momentum": (0, 1),
    "batch": (1, TRAIN_IMAGES),
    "dropout": (0, 1),
    "negative_slope": (0, 10**6),
    "classes": (2, _MOST),
    "crop": (1, IMAGE),
    "input_scale": (0, 10**6),
    "lr_factor": (0, 1),
    "patience": (1, _MOST),
    "lr_drops": (1, _MOST),
    "max_epochs": (1, _MOST // TRAIN_IMAGES),
}
_ABOVE = {"base_lr", "input_scale", "lr_factor"}  # not the lower end itself
_BELOW = {"momentum", "dropout", "lr_factor"}  # not the upper end itself


@dataclass(frozen=True)
class Conv:
    """One convolution: stride 1, "same" padding.

    Attributes:
        name: `conv<stage>_<position>`, both counted from 1.
        kernel: side of the square kernel, odd.
        outputs: number of output channels.
    """

    name: str
    kernel: int
    outputs: int


@dataclass(frozen=True)
class Model:
    """One net and the way it is trained.

    Attributes:
        name: what the command line calls it.
        convs: the convolutions in Table 1's notation, `kernel-outputs`, with `|` for a 2x2 max pool of stride 2.
        hidden: outputs of the fully connected layers before the last one, each followed by dropout.
        activation: what follows each convolution; fully connected layers take ReLU (open point f).
        drop_after_stage: the stage whose last activation is followed by dropout as well, 0 for none.
        screened: trained without the images whose object a crop may miss (section 5.2.1).
        base_lr, weight_decay, momentum, batch, dropout: the solver's values (section 5.2.1, open point e); with a
            dropout of 0 the net has no Dropout layers.
        negative_slope: of LReLU (section 5.3.2).
        classes, crop: outputs of the last layer, side of the input in pixels.
        input_scale: what pixels are multiplied by once the mean is subtracted (open point h).
        draw: how training draws its crops, UNIFORM or TEN_CROP (open point g).
        lr_schedule: "plateau" (the paper's) or "cosine", which ends at 0 after `max_epochs`.
        lr_factor, patience, lr_drops, max_epochs: the rate is multiplied by `lr_factor` when validation top-1 has not
            improved for `patience` epochs; training stops after that has happened `lr_drops` times, or after
            `max_epochs` (open point l).
        shallow: convolutions, written as `convs`, of the nets that are trained before this one, from random weights the
            first; each hands its weights on by layer name (section 5.2.2, open points j and k).

    Raises:
        NetError: values that make no net.
    """

    name: str
    convs: str
    hidden: tuple[int, ...] = (1024,)
    activation: str = "ReLU"
    drop_after_stage: int = 0
    screened: bool = False
    base_lr: float = 0.01
    weight_decay: float = 5e-4
    momentum: float = 0.9
    batch: int = 200
    dropout: float = 0.5
    negative_slope: float = 0.01
    classes: int = 200
    crop: int = 56
    input_scale: float = 1 / 64
    draw: str = "UNIFORM"
    lr_schedule: str = "plateau"
    lr_factor: float = 0.1
    patience: int = 5
    lr_drops: int = 3
    max_epochs: int = 100
    shallow: tuple[str, ...] = ()
    stages: tuple[tuple[Conv, ...], ...] = field(init=False, repr=False)

    def __post_init__(self):
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name, re.ASCII):
            raise NetError(f"{self.name!r} is no name of a model: it names a folder, use letters, digits, _ . and -")
        for name, allowed in (("activation", ACTIVATIONS), ("draw", DRAWS), ("lr_schedule", LR_SCHEDULES)):
            if getattr(self, name) not in allowed:
                raise NetError(f"{self.name}: {name} {getattr(self, name)!r} is none of {', '.join(allowed)}")
        for name in _RANGES:
            self._check_range(name)
        if not self.hidden or not all(1 <= n <= _MOST for n in self.hidden):
            raise NetError(
                f"{self.name}: hidden {self.hidden} must be the outputs of one layer or more, each 1 or more"
            )
        object.__setattr__(self, "stages", self._parse_convs())
        if self.drop_after_stage > len(self.stages):
            raise NetError(f"{self.name}: drop_after_stage {self.drop_after_stage} is none of its stages")
        if self.crop < 2**self.pools:
            raise NetError(f"{self.name}: a crop of {self.crop} is nothing after {self.pools} pools, use a larger one")
        if any(inputs * outputs > _MOST for inputs, outputs in self._matrices()):
            raise NetError(f"{self.name}: a layer has more than {_MOST} weights, which no blob of Caffe's holds")
        if max(self._blobs()) > _MOST:
            raise NetError(
                f"{self.name}: at batch {self.batch} a blob would have more than {_MOST} values, Caffe's most"
            )
        for convs in self.shallow:
            self._check_shallow(self.replace(convs=convs, shallow=(), drop_after_stage=0))

    def _check_range(self, name: str) -> None:
        """Raises NetError unless the number is one that a net can be made and trained with."""
        value, (low, high) = getattr(self, name), _RANGES[name]
        stored = value if isinstance(value, int) else struct.unpack("f", struct.pack("f", value))[0]  # as Caffe has it
        above = stored > low if name in _ABOVE else stored >= low  # both are false of NaN
        below = stored < high if name in _BELOW else stored <= high
        if not (above and below):
            least = f"above {low}" if name in _ABOVE else f"at least {low}"
            most = f"below {high}" if name in _BELOW else f"at most {high}"
            raise NetError(f"{self.name}: {name} is {value}, it must be {least} and {most}")

    def _check_shallow(self, shallow: Model) -> None:
        """Raises NetError unless the weights of `shallow` fit this net's layers of the same names."""
        deep, known = self._weights(), shallow._weights()
        odd = [name for name, shape in known.items() if deep.get(name) != shape]
        if odd:
            raise NetError(f"{self.name}: {odd[0]} of the shallow net {shallow.convs!r} is not as in the deep one")
        if shallow.pools != self.pools or shallow.stages[-1][-1].outputs != self.stages[-1][-1].outputs:
            raise NetError(f"{self.name}: fc1 of the shallow net {shallow.convs!r} has not the deep one's inputs")

    def _weights(self) -> dict[str, tuple[int, int, int]]:
        """Kernel, inputs and outputs of each convolution."""
        convs = [conv for stage in self.stages for conv in stage]
        inputs = [3, *(conv.outputs for conv in convs)]
        return {conv.name: (conv.kernel, n, conv.outputs) for conv, n in zip(convs, inputs)}

    def _parse_convs(self) -> tuple[tuple[Conv, ...], ...]:
        stages = []
        for s, stage in enumerate(self.convs.rstrip().removesuffix("|").split("|"), 1):
            convs = []
            for i, conv in enumerate(stage.split(), 1):
                kernel, _, outputs = conv.partition("-")
                numbers = re.fullmatch(r"[0-9]{1,9}-[0-9]{1,9}", conv)
                if not numbers or int(kernel) % 2 == 0 or int(outputs) == 0:
                    raise NetError(
                        f"{self.name}: {conv!r} is no convolution: write kernel-outputs, the kernel odd, such as 3-64"
                    )
                convs.append(Conv(f"conv{s}_{i}", int(kernel), int(outputs)))
            if not convs:
                raise NetError(f"{self.name}: stage {s} of {self.convs!r} has no convolution")
            stages.append(tuple(convs))
        return tuple(stages)

    @property
    def pools(self) -> int:
        """Number of max pools."""
        return self.convs.count("|")

    @property
    def fully_connected(self) -> tuple[tuple[str, int], ...]:
        """Names and outputs of the fully connected layers; the last is always fc3, as in Table 1."""
        return (*((f"fc{i}", n) for i, n in enumerate(self.hidden, 1)), ("fc3", self.classes))

    @property
    def training_stages(self) -> tuple[Model, ...]:
        """The nets that are trained one after the other; the last is this one."""
        earlier = [
            self.replace(name=f"{self.name}_stage{i}", convs=convs, shallow=())
            for i, convs in enumerate(self.shallow, 1)
        ]
        return (*earlier, self)

    @property
    def depth(self) -> int:
        """Layers with weights: convolutions and fully connected ones."""
        return sum(map(len, self.stages)) + len(self.fully_connected)

    @property
    def train_lmdb(self) -> str:
        """The training LMDB's name in a converted data folder."""
        return "train_screened.lmdb" if self.screened else "train.lmdb"

    @property
    def parameters(self) -> int:
        """Weights, biases and PReLU slopes."""
        slopes = sum(conv.outputs for stage in self.stages for conv in stage) if self.activation == "PReLU" else 0
        return sum((inputs + 1) * outputs for inputs, outputs in self._matrices()) + slopes

    def _matrices(self) -> Iterator[tuple[int, int]]:
        """Of each layer with weights: the values that an output is made of, and its outputs."""
        channels, side = 3, self.crop
        for s, stage in enumerate(self.stages, 1):
            for conv in stage:
                yield conv.kernel**2 * channels, conv.outputs
                channels = conv.outputs
            side = math.ceil(side / 2) if s <= self.pools else side  # Caffe's pools round up
        inputs = channels * side**2
        for _, outputs in self.fully_connected:
            yield inputs, outputs
            inputs = outputs

    def _blobs(self) -> Iterator[int]:
        """Values in the output of each convolution for a batch, and in what one image is unfolded to before it."""
        channels, side = 3, self.crop
        for s, stage in enumerate(self.stages, 1):
            for conv in stage:
                yield self.batch * conv.outputs * side**2
                yield conv.kernel**2 * channels * side**2
                channels = conv.outputs
            side = math.ceil(side / 2) if s <= self.pools else side
        yield self.batch * max(outputs for _, outputs in self.fully_connected)

    def replace(self, **changes) -> Model:
        """A variant with some fields changed."""
        unknown = sorted(set(changes) - {f.name for f in dataclasses.fields(self) if f.init})
        if unknown:
            raise NetError(f"{self.name} has no field {unknown[0]!r}: see tiny_imagenet.models.zoo.Model")
        return dataclasses.replace(self, **changes)


# One row a column of Table 1. Model 4 is Model 3 with one more dropout (open point a); Models 7 and 8 are one net with
# two regularizations (open point d); Model 9 has no pool after its last stage (open point c).
_ROWS = (
    Model("model1", "5-64 | 5-64 | 5-128 |", hidden=(256,)),
    Model("model2", "5-64 3-64 | 5-128 3-128 | 3-256 |"),
    Model("model3", "5-64 3-64 | 5-128 3-128 | 3-256 3-256 |"),
    Model("model4", "5-64 3-64 | 5-128 3-128 | 3-256 3-256 |", drop_after_stage=3),
    Model("model5", "3-64 3-64 | 3-128 3-128 | 3-256 3-256 |", activation="PReLU", screened=True),
    Model("model6", "3-64 3-64 | 3-128 3-128 | 3-256 3-256 |", activation="LReLU", screened=True, drop_after_stage=3),
    Model(
        "model7",
        "3-128 3-128 | 3-256 3-256 | 3-512 3-512 |",
        hidden=(2048, 2048),
        activation="LReLU",
        screened=True,
        drop_after_stage=3,
    ),
    Model(
        "model8",
        "3-128 3-128 | 3-256 3-256 | 3-512 3-512 |",
        hidden=(2048, 2048),
        activation="LReLU",
        screened=True,
        drop_after_stage=3,
        base_lr=0.02,
        weight_decay=1e-4,
    ),
    Model(
        "model9",
        "3-64 3-64 | 3-128 3-128 | 3-256 3-256 3-256 | 3-512 3-512 3-512 3-512 3-512 3-512",
        hidden=(4096, 4096),
        screened=True,
        shallow=("3-64 | 3-128 | 3-256 3-256 | 3-512 3-512",),  # open point j
    ),
)

MODELS: dict[str, Model] = {row.name: row for row in _ROWS}

# The other readings of the open points, where there is one, each with the point's letter.
_VARIANTS = (
    ("a", MODELS["model4"].replace(name="model4_conv5", convs="5-64 5-64 | 5-128 3-128 | 3-256 3-256 |")),
    ("c", MODELS["model9"].replace(name="model9_pool4", convs=f"{MODELS['model9'].convs} |", shallow=())),
    ("k", MODELS["model8"].replace(name="model8_staged", shallow=("3-128 | 3-256 | 3-512 3-512 |",))),
    ("k", MODELS["model9"].replace(name="model9_unstaged", shallow=())),
)
# What the training loop is told beside the solver's prototxt, which has no fields for it.
SCHEDULE = ("lr_schedule", "lr_factor", "patience", "lr_drops")
VARIANTS: dict[str, Model] = {model.name: model for _, model in _VARIANTS}


def parse_field(name: str, text: str):
    """The value of a field of Model, read from text: "TEN_CROP", "0.02", "512,512", "" for none of several.

    Raises:
        NetError: there is no such field, or the text is no value of it.
    """
    fields = {f.name: f for f in dataclasses.fields(Model) if f.init and f.name != "name"}
    if name not in fields:
        raise NetError(f"a model has no field {name!r}: it has {', '.join(fields)}")
    kind = fields[name].type
    try:
        if kind.startswith("tuple"):
            item = int if "int" in kind else str
            return tuple(item(part) for part in text.split(",") if part)
        if kind == "bool":
            return {"true": True, "false": False}[text.lower()]
        value = {"int": int, "float": float, "str": str}[kind](text)
    except (ValueError, KeyError) as error:
        raise NetError(f"{name}={text}: {text!r} is no value of type {kind}") from error
    if isinstance(value, float) and not math.isfinite(value):
        raise NetError(f"{name}={text}: it must be a finite number")
    return value


def open_points(model: Model, base: str = "") -> tuple[str, ...]:
    """The letters of the points that the paper leaves open and that touch this model (prototxt/README.md).

    `base` is the row that it was made from, where its name does not say that.
    """
    base = base or model.name.split("_")[0]
    own = {"model4": "a", "model5": "b", "model7": "d", "model8": "dk", "model9": "cjk"}.get(base, "")
    if base in MODELS and base not in ("model8", "model9"):
        own += "e"
    letters = sorted({*own, *"fghl"})
    return (*letters, "i", "i2") if model.screened else tuple(letters)


def get(name: str) -> Model:
    """The model or variant of that name.

    Raises:
        UnknownModelError: there is none.
    """
    known = {**MODELS, **VARIANTS}
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UnknownModelError(f"unknown model {name!r}: {hint}the models are {', '.join(known)}")
    return known[name]
