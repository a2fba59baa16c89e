"""The models as rows. Adding a model means adding a row to MODELS.

A row specifies how a model differs from the defaults; layer names, sizes, depth and parameter count follow from it.
The rows are Table 1 of the paper, with the solvers of section 5.2.1. Our readings of the points that the paper leaves
open are marked with the letters of prototxt/README.md.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass, field

from tiny_imagenet.cli import did_you_mean
from tiny_imagenet.errors import NetError, UnknownModelError

CHOICES = {
    "activation": ("ReLU", "PReLU", "LReLU"),
    "draw": ("UNIFORM", "TEN_CROP"),
    "lr_schedule": ("plateau", "cosine"),
}
IMAGE = 64  # side of a Tiny ImageNet image in pixels
TRAIN_IMAGES = 100_000
VAL_IMAGES = 10_000
_AT_LEAST = {
    **dict.fromkeys(("batch", "crop", "lr_drops", "max_epochs"), 1),
    **dict.fromkeys(("drop_after_stage", "weight_decay", "negative_slope", "patience"), 0),
    "classes": 2,
}
_ABOVE_0 = ("base_lr", "input_scale", "lr_factor")
_BELOW_1 = ("momentum", "dropout", "lr_factor")
# Fields of the learning rate schedule, which a solver's prototxt cannot hold: options of training.
SCHEDULE = ("lr_schedule", "lr_factor", "patience", "lr_drops")


@dataclass(frozen=True)
class Conv:
    """A convolution of stride 1 with "same" padding.

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
    """A net and how it is trained.

    Attributes:
        name: on the command line, and of its folder.
        convs: convolutions in Table 1's notation, `kernel-outputs`; `|` is a 2x2 max pool of stride 2.
        hidden: outputs of the fully connected layers before the last one, each followed by dropout.
        activation: after each convolution; fully connected layers are followed by ReLU (open point f).
        batch_norm: whether each convolution is followed by BatchNorm and Scale, and has no bias.
        drop_after_stage: number of the stage that ends with dropout; 0 for none.
        screened: whether images in which a crop may miss the object are left out of training (section 5.2.1).
        base_lr, weight_decay, momentum, batch: of the solver (section 5.2.1, open point e).
        dropout: fraction of values that the Dropout layers drop (section 5.2.1); 0 leaves the layers out.
        negative_slope: of LReLU (section 5.3.2).
        classes: outputs of the last layer.
        crop: side of the input in pixels.
        input_scale: factor of the pixels after the mean is subtracted (open point h).
        draw: how training draws its crops, UNIFORM or TEN_CROP (open point g).
        lr_schedule: "plateau" or "cosine".
        lr_factor, patience, lr_drops: plateau schedule: the rate is multiplied by `lr_factor` when validation top-1
            has not improved for `patience` epochs (0: never), and training stops at the last of `lr_drops` drops.
        max_epochs: length of training at most (open point l).
        shallow: convolutions, written like `convs`, of the nets trained before this one, the first of them from random
            weights; each passes its weights on by layer name (section 5.2.2, open points j and k).

    Raises:
        NetError: the values do not describe a net.
    """

    name: str
    convs: str
    hidden: tuple[int, ...] = (1024,)
    activation: str = "ReLU"
    batch_norm: bool = False
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
            raise NetError(f"invalid model name {self.name!r}: use letters, digits, _ . and -")
        for name, allowed in CHOICES.items():
            self._check(name, getattr(self, name) in allowed, f"one of {', '.join(allowed)}")
        for name, least in _AT_LEAST.items():
            self._check(name, getattr(self, name) >= least, f"a number of at least {least}")
        for name in _ABOVE_0:
            self._check(name, 0 < getattr(self, name) < math.inf, "a number above 0")
        for name in _BELOW_1:
            self._check(name, 0 <= getattr(self, name) < 1, "a number from 0 to below 1")
        self._check("crop", self.crop <= IMAGE, f"at most {IMAGE}, the size of an image")
        self._check("hidden", min(self.hidden, default=0) >= 1, "the outputs of one or more layers")
        object.__setattr__(self, "stages", self._parse_convs())
        self._check("drop_after_stage", self.drop_after_stage <= len(self.stages), f"at most {len(self.stages)}")
        self._check("crop", self.crop >= 2**self.pools, f"at least {2**self.pools} for {self.pools} pools")
        for stage in self.training_stages[:-1]:
            if stage.pools != self.pools or stage.stages[-1][-1].outputs != self.stages[-1][-1].outputs:
                raise self._error(f"fc1 of the shallow net {stage.convs!r} has a different input size in the deep net")

    def _check(self, name: str, valid: bool, expected: str) -> None:
        if not valid:
            raise self._error(f"{name} is {getattr(self, name)!r}, expected {expected}")

    def _error(self, text: str) -> NetError:
        return NetError(f"{self.name}: {text}")

    def _kernels(self) -> dict[str, tuple[int, int, int]]:
        """Kernel, inputs and outputs of each convolution, by name."""
        convs = [conv for stage in self.stages for conv in stage]
        inputs = [3, *(conv.outputs for conv in convs)]
        return {conv.name: (conv.kernel, n, conv.outputs) for conv, n in zip(convs, inputs)}

    def _parse_convs(self) -> tuple[tuple[Conv, ...], ...]:
        stages = []
        for s, stage in enumerate(self.convs.rstrip().removesuffix("|").split("|"), 1):
            convs = []
            for i, conv in enumerate(stage.split(), 1):
                numbers = re.fullmatch(r"([0-9]{1,2})-([0-9]{1,6})", conv)
                if not numbers or int(numbers[1]) % 2 == 0 or int(numbers[2]) == 0:
                    raise self._error(f"invalid convolution {conv!r}: expected kernel-outputs with an odd kernel: 3-64")
                convs.append(Conv(f"conv{s}_{i}", int(numbers[1]), int(numbers[2])))
            if not convs:
                raise self._error(f"stage {s} of {self.convs!r} has no convolution")
            stages.append(tuple(convs))
        return tuple(stages)

    @property
    def pools(self) -> int:
        """Number of max pools."""
        return self.convs.count("|")

    @property
    def fully_connected(self) -> tuple[tuple[str, int], ...]:
        """Names and outputs of the fully connected layers; the last is always fc3, as in Table 1."""
        return (*((f"fc{i}", outputs) for i, outputs in enumerate(self.hidden, 1)), ("fc3", self.classes))

    @property
    def training_stages(self) -> tuple[Model, ...]:
        """The nets trained one after the other; the last is this one."""
        names = [f"{self.name}_stage{i}" for i in range(1, len(self.shallow) + 1)]
        return (*(self.replace(name=name, convs=c, shallow=()) for name, c in zip(names, self.shallow)), self)

    @property
    def depth(self) -> int:
        """Number of convolutions and fully connected layers."""
        return sum(map(len, self.stages)) + len(self.fully_connected)

    @property
    def train_lmdb(self) -> str:
        """Name of the training LMDB in a converted data folder."""
        return "train_screened.lmdb" if self.screened else "train.lmdb"

    @property
    def parameters(self) -> int:
        """Number of values in the net's parameter blobs, with PReLU's slopes and BatchNorm's statistics."""
        per_channel = 4 if self.batch_norm else 1  # mean, variance, scale and shift; otherwise the bias
        per_channel += self.activation == "PReLU"
        convs = self._kernels().values()
        counts = [kernel**2 * inputs * outputs + per_channel * outputs for kernel, inputs, outputs in convs]
        if self.batch_norm:
            counts.append(len(convs))  # the scale factor of each layer's statistics
        side = self.crop
        for _ in range(self.pools):
            side = math.ceil(side / 2)  # Caffe rounds up
        inputs = self.stages[-1][-1].outputs * side**2
        for _, outputs in self.fully_connected:
            counts.append((inputs + 1) * outputs)
            inputs = outputs
        return sum(counts)

    def replace(self, **changes) -> Model:
        """Return a variant with some fields changed."""
        for name in changes:
            _check_field(name)
        return dataclasses.replace(self, **changes)


def _check_field(name: str) -> str:
    """Return the type of a field of Model as text, or raise NetError."""
    fields = {f.name: f.type for f in dataclasses.fields(Model) if f.init}
    if name not in fields:
        raise NetError(f"unknown field {name!r} of a model.{did_you_mean(name, fields)} Known: {', '.join(fields)}")
    return fields[name]


# The columns of Table 1. Model 4 is Model 3 with one more dropout (open point a), Models 7 and 8 are one net with two
# solvers (open point d), Model 9 has no pool after its last stage (open point c).
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
# The other readings of the paper's open points; the letters are those of prototxt/README.md.
_VARIANTS = (
    MODELS["model4"].replace(name="model4_conv5", convs="5-64 5-64 | 5-128 3-128 | 3-256 3-256 |"),  # a
    MODELS["model5"].replace(name="model5_text", convs=MODELS["model4"].convs, drop_after_stage=3),  # d2
    MODELS["model6"].replace(name="model6_text", drop_after_stage=0),  # d
    MODELS["model6"].replace(name="model7_text"),  # d
    MODELS["model8"].replace(name="model8_staged", shallow=("3-128 | 3-256 | 3-512 3-512 |",)),  # k
    MODELS["model9"].replace(name="model9_pool4", convs=f"{MODELS['model9'].convs} |", shallow=()),  # c
    MODELS["model9"].replace(name="model9_unstaged", shallow=()),  # k
)
VARIANTS: dict[str, Model] = {model.name: model for model in _VARIANTS}
NAMES = f"{next(iter(MODELS))} ... {list(MODELS)[-1]}"  # in help texts


def get(name: str) -> Model:
    """Return the model or variant of that name.

    Raises:
        UnknownModelError: no model has this name.
    """
    known = {**MODELS, **VARIANTS}
    if name not in known:
        raise UnknownModelError(f"unknown model {name!r}.{did_you_mean(name, known)} Known models: {', '.join(known)}")
    return known[name]


def base(name: str) -> str:
    """Return the name of the row that a variant is another reading of: "model4" for "model4_conv5"."""
    return name.partition("_")[0] if name in VARIANTS else name


def parse_field(name: str, text: str):
    """Return the value of a field of Model from text: "TEN_CROP", "0.02", "512,512", "" for an empty tuple.

    Raises:
        NetError: the field is unknown, or the text is not a value of its type.
    """
    kind = _check_field(name)
    try:
        if kind.startswith("tuple"):
            item = int if "int" in kind else str
            return tuple(item(part) for part in text.split(",") if part)
        if kind == "bool":
            return {"true": True, "false": False}[text.lower()]
        return {"int": int, "float": float, "str": str}[kind](text)
    except (ValueError, KeyError) as error:
        raise NetError(f"{name}={text}: expected a value of type {kind}") from error
