"""Options of a training, and the command-line flags made from them."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiny_imagenet import cli
from tiny_imagenet.models import zoo


def _flag(help_text: str, default: Any = None, flags: tuple[str, ...] = (), **argument: Any) -> Any:
    """Field of `Options` with its flag: `argument` goes to argparse; without `flags` the name is the field's."""
    return field(default=default, metadata={"flags": flags, "argument": {"help": help_text, **argument}})


_ROW = "(default: the model's)"


@dataclass(frozen=True)
class Options:
    """How a net is trained, apart from its files; each field is described by its flag's help.

    None stands for the default: that of the files, of the model's row or, when a run resumes, of the run. `gpus` is
    "all" or the numbers of the GPUs, () for the CPU. `prototxt` is the folder that contains the models of the zoo.
    """

    data: Path | None = _flag("converted data set; not needed with --resume", type=Path, metavar="DIR")
    run: Path = _flag("run folder to create or resume", type=Path, metavar="DIR")
    resume: bool = _flag(
        "resume the run from its last checkpoint; start it if there is none", False, action="store_true"
    )
    seed: int | None = _flag("seed of weights, order, crops and dropout (default: 1)", type=cli.count, metavar="S")
    epochs: int | None = _flag("train for N passes over the data", type=cli.positive_int, metavar="N")
    max_iter: int | None = _flag("train for N iterations", type=cli.positive_int, metavar="N")
    batch: int | None = _flag("images per iteration (default: the file's)", type=cli.positive_int, metavar="N")
    base_lr: float | None = _flag(
        "initial learning rate (default: the file's)", type=cli.positive_float, metavar="RATE"
    )
    lr_schedule: str | None = _flag(f"learning rate schedule {_ROW}", choices=zoo.CHOICES["lr_schedule"])
    patience: int | None = _flag(
        f"plateau: epochs without a better top-1 before the rate drops, 0 for never {_ROW}", type=cli.count, metavar="N"
    )
    lr_factor: float | None = _flag(f"plateau: factor of the rate at a drop {_ROW}", type=cli.factor, metavar="F")
    lr_drops: int | None = _flag(
        f"plateau: number of plateaus before training stops; can be raised with --resume {_ROW}",
        type=cli.positive_int,
        metavar="N",
    )
    init: Path | None = _flag(
        "caffemodel that initializes the layers of the same names; skips the stages", type=Path, metavar="WEIGHTS"
    )
    staged: bool = _flag("do not train the nets in stages/ first", True, flags=("--no-stages",), action="store_false")
    gpus: tuple[int, ...] | str | None = None
    tf32: bool | None = None
    deterministic: bool | None = None
    keep: int = _flag("newest checkpoints to keep (default: 2)", 2, type=cli.positive_int, metavar="N")
    save_every: float = _flag(
        "minutes between checkpoints within an epoch (default: 15)", 15, type=cli.positive_float, metavar="MINUTES"
    )
    timeout: float = _flag(
        "mpirun and srun: seconds without progress after which the run is ended (default: 300)",
        300,
        flags=("--timeout", "--answer-within"),
        type=cli.positive_float,
        metavar="SECONDS",
    )
    quiet: bool = _flag("print only warnings; train.log has everything", False, action="store_true")
    prototxt: Path = Path("prototxt")

    def schedule(self, defaults: Any) -> dict[str, Any]:
        """The schedule fields: those given here, else those of `defaults` (a row of the zoo or a dict)."""
        values = defaults if isinstance(defaults, dict) else dataclasses.asdict(defaults)
        given = {name: getattr(self, name) for name in zoo.SCHEDULE}
        return {name: values[name] if value is None else value for name, value in given.items()}


def flag(name: str) -> str:
    """Return the flag of a field, as "--base-lr"."""
    own = {f.name: f.metadata.get("flags") for f in dataclasses.fields(Options)}[name]
    return own[0] if own else f"--{name.replace('_', '-')}"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of all options."""
    length = parser.add_mutually_exclusive_group()
    for option in dataclasses.fields(Options):
        if option.metadata:
            names = option.metadata["flags"] or (flag(option.name),)
            group = length if option.name in ("epochs", "max_iter") else parser
            group.add_argument(*names, dest=option.name, default=option.default, **option.metadata["argument"])
        elif option.name == "gpus":
            cli.add_gpus(parser, "train on these GPUs, which share each batch (default: the CPU)")


def parsed(args: argparse.Namespace, prototxt: Path) -> Options:
    """Return the options that `add_flags` has parsed; `prototxt` contains the models of the zoo."""
    names = [option.name for option in dataclasses.fields(Options) if option.name != "prototxt"]
    return Options(**{name: getattr(args, name) for name in names}, prototxt=prototxt)
