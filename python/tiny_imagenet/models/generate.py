"""Writes prototxt/: each model's train_val, deploy and solver files, those of its training stages, its train script.

Every generated file opens with a comment that says what made it, with a digest of all its other lines. A file whose
digest no longer fits was edited by hand, be it in a comment: it is left alone unless told otherwise.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shlex
from collections.abc import Iterable
from pathlib import Path

from tiny_imagenet import files
from tiny_imagenet.errors import NetError
from tiny_imagenet.models import nets, solvers
from tiny_imagenet.models.zoo import MODELS, SCHEDULE, Model, open_points

_DIGEST = "# digest: "
_FORMS = {
    "train_val.prototxt": "for training and validation",
    "deploy.prototxt": "for prediction: image in, probabilities out",
    "solver.prototxt": "how the net is trained",
}
TRAIN_SCRIPT = "train.sh"


def texts(model: Model, folder: Path, tools: Path, arguments: str = "", origin: str = "") -> dict[str, str]:
    """The generated files of a model by their paths in its folder.

    Args:
        model: a row of the zoo or a variant of one.
        folder: that holds the model's, such as prototxt.
        tools: with train.py, which the train script calls: from its own place where both are in one checkout.
        arguments: what tools/generate.py was given beside the model's name.
        origin: the row that the model was made from, where it has another name.
    """
    result = {}
    top = folder.resolve().name
    for number, stage in enumerate(model.training_stages, 1):
        place = "" if stage is model else f"stages/{number}/"
        bodies = {
            "train_val.prototxt": nets.to_text(nets.build(stage)),
            "deploy.prototxt": nets.to_text(nets.build(stage, deploy=True)),
            "solver.prototxt": solvers.to_text(solvers.build(stage, f"{top}/{model.name}/{place}".rstrip("/"))),
        }
        for name, body in bodies.items():
            header = _header(model, stage, number, name, arguments, origin or model.name)
            result[place + name] = _sealed("".join(f"# {line}\n" for line in header), f"\n{body}")
    result[TRAIN_SCRIPT] = _train_script(model, folder.resolve(), tools.resolve())
    return result


def _header(model: Model, stage: Model, number: int, name: str, arguments: str, origin: str) -> list[str]:
    base, _, variant = origin.partition("_")
    variant = variant if origin == model.name else model.name
    title = base.replace("model", "Model ", 1) + (f" ({variant})" if variant else "")
    same = base in MODELS and model.replace(name=base) == MODELS[base]
    column = (
        f", {'column' if same else 'after column'} {base.removeprefix('model')} of Table 1" if base in MODELS else ""
    )
    command = " ".join(f"tools/generate.py {origin} {arguments}".split())
    lines = [
        f"{title} of Tiny ImageNet Visual Recognition Challenge (Le and Yang){column}, {_FORMS[name]}.",
        f"{stage.depth} layers with weights, {stage.activation}, {stage.parameters:,} parameters, "
        f"{stage.classes} classes.",
    ]
    if stage is not model:
        lines.append(f"Training stage {number}: the next takes its weights by layer name (tools/train.py --init).")
    elif model.shallow:
        lines.append(f"Trained in stages: after stages/{number - 1}, from its weights.")
    lines += [
        f"Points that the paper leaves open, see prototxt/README.md: {', '.join(open_points(model, base))}.",
        f"Made by {command}. Edit it as you like: training reads it as it stands.",
    ]
    return lines


def _train_script(model: Model, folder: Path, tools: Path) -> str:
    train = shlex.quote(str(tools / "train.py"))
    if tools.parent in folder.parents:
        train = f'"$here/{os.path.relpath(tools, folder / model.name)}/train.py"'
    # What a solver's prototxt cannot say; a flag that is given comes later and counts.
    default = {field.name: field.default for field in dataclasses.fields(Model)}
    own = {name: getattr(model, name) for name in SCHEDULE if getattr(model, name) != default[name]}
    flags = "".join(f" --{name.replace('_', '-')} {value}" for name, value in own.items())
    name = f"{folder.name}/{model.name}/{TRAIN_SCRIPT}"
    header = f"#!/bin/sh\n# Train {model.name}: {name} --data DIR --run DIR (--help for the rest)\n"
    return _sealed(
        header,
        'here=$(dirname "$(readlink -f "$0")")\n'
        f"train={train}\n"
        '[ -x "$train" ] || { echo "train.sh: error: $train is not there: call tools/train.py of a checkout with'
        ' $here/solver.prototxt" >&2; exit 1; }\n'
        f'exec "$train" "$here/solver.prototxt"{flags} "$@"\n',
    )


def _sealed(header: str, rest: str) -> str:
    return f"{header}{_DIGEST}{_digest(header + rest)}\n{rest}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_edited(text: str) -> bool:
    """Whether a file was changed since it was generated (or never was)."""
    lines = text.splitlines(keepends=True)
    sealed = [i for i, line in enumerate(lines) if line.startswith(_DIGEST)]
    if not sealed:
        return True
    digest = lines.pop(sealed[0])
    return digest != f"{_DIGEST}{_digest(''.join(lines))}\n"


def write(
    models: Iterable[Model], folder: Path, tools: Path, arguments: str = "", origin: str = "", force: bool = False
) -> list[Path]:
    """Write the files of `models` into `folder`/<model> and return those that changed; the rest as `texts`.

    Raises:
        NetError: a file of one of them was edited by hand and `force` is not given; nothing at all is written then.
    """
    if not folder.resolve().name.isprintable():
        raise NetError(f"{str(folder)!r}: the name of a folder for prototxt files must be printable")
    changed: dict[Path, str | None] = {}
    for model in models:
        changed.update(_stale(model, folder, tools, arguments, origin))
    edited = [path for path in changed if os.path.lexists(path) and is_edited(_read(path))]
    if edited and not force:
        more = f" ({len(edited)} such files)" if len(edited) > 1 else ""
        raise NetError(f"{edited[0]} was edited by hand{more}: keep it, or add --force to write over it")
    for path, text in changed.items():
        if text is None:
            path.unlink()
            continue
        target = path.resolve()  # a link stays one
        files.write_text(target, text)
        target.chmod(0o755 if path.name == TRAIN_SCRIPT else 0o644)
    for folder_of_stage in {path.parent for path, text in changed.items() if text is None}:
        with contextlib.suppress(OSError):  # not empty: what else is there is somebody's
            folder_of_stage.rmdir()
            folder_of_stage.parent.rmdir()
    return list(changed)


def differing(model: Model, folder: Path, tools: Path, arguments: str = "", origin: str = "") -> list[Path]:
    """The files of `folder`/<model> that are missing or not what `write` would make."""
    return list(_stale(model, folder, tools, arguments, origin))


def _stale(model: Model, folder: Path, tools: Path, arguments: str, origin: str) -> dict[Path, str | None]:
    """The files that are missing or have another text, with the text that `write` would give them; None: it goes."""
    new = {folder / model.name / name: text for name, text in texts(model, folder, tools, arguments, origin).items()}
    stale: dict[Path, str | None] = {
        path: text for path, text in new.items() if not path.exists() or _read(path) != text
    }
    stages = (folder / model.name).glob("stages/[0-9]*/*.prototxt")
    return {**stale, **dict.fromkeys(sorted(path for path in stages if path not in new))}


def _read(path: Path) -> str:
    """The text of a file; of one that nothing here wrote (no UTF-8, a link to nowhere), "": edited, like no other."""
    try:
        return path.read_bytes().decode()
    except (UnicodeDecodeError, OSError):
        return ""
