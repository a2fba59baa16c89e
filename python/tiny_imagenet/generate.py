"""Writes prototxt/: each model's train_val, deploy and solver files, those of its training stages, its train script.

Every generated prototxt opens with a comment that names what made it and a digest of what follows it. A file whose
digest no longer fits was edited by hand: it is left alone unless told otherwise.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from tiny_imagenet import files, nets, solvers
from tiny_imagenet.errors import NetError
from tiny_imagenet.zoo import MODELS, Model, open_points

_DIGEST = "# digest: "
_FORMS = {
    "train_val.prototxt": "for training and validation",
    "deploy.prototxt": "for prediction: image in, probabilities out",
    "solver.prototxt": "how the net is trained",
}
TRAIN_SCRIPT = "train.sh"


def texts(model: Model, arguments: str = "", top: str = "prototxt") -> dict[str, str]:
    """The generated files of a model by their paths in its folder.

    Args:
        model: a row of the zoo or a variant of one.
        arguments: what tools/generate.py was given beside the model's name.
        top: name of the folder that holds the model's.
    """
    result = {}
    for number, stage in enumerate(model.training_stages, 1):
        folder = "" if stage is model else f"stages/{number}/"
        bodies = {
            "train_val.prototxt": nets.to_text(nets.build(stage)),
            "deploy.prototxt": nets.to_text(nets.build(stage, deploy=True)),
            "solver.prototxt": solvers.to_text(solvers.build(stage, f"{top}/{model.name}/{folder}".rstrip("/"))),
        }
        for name, body in bodies.items():
            result[folder + name] = _with_header(model, stage, number, name, body, arguments)
    source = model.name if top == "prototxt" and model.name in MODELS else '"$(dirname "$0")/solver.prototxt"'
    result[TRAIN_SCRIPT] = (
        "#!/bin/sh\n"
        f"# Train {model.name}: {top}/{model.name}/{TRAIN_SCRIPT} --data DIR --run DIR (--help for the rest)\n"
        f'exec "$(dirname "$0")/../../tools/train.py" {source} "$@"\n'
    )
    return result


def _with_header(model: Model, stage: Model, number: int, name: str, body: str, arguments: str) -> str:
    base, _, variant = model.name.partition("_")
    title = base.replace("model", "Model ", 1) + (f" ({variant})" if variant else "")
    column = f", column {base.removeprefix('model')} of Table 1" if base in MODELS else ""
    command = " ".join(f"tools/generate.py {model.name} {arguments}".split())
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
        f"Points that the paper leaves open, see prototxt/README.md: {', '.join(open_points(model))}.",
        f"Made by {command}. Edit it as you like: training reads it as it stands.",
    ]
    return "".join(f"# {line}\n" for line in lines) + f"{_DIGEST}{_digest(body)}\n\n{body}"


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]


def is_edited(text: str) -> bool:
    """Whether a prototxt was changed since it was generated (or never was)."""
    header, _, body = text.partition("\n\n")
    return f"{_DIGEST}{_digest(body)}" not in header.splitlines()


def write(model: Model, folder: Path, arguments: str = "", force: bool = False) -> list[Path]:
    """Write a model's files into `folder`/<model> and return those that changed.

    Raises:
        NetError: a file there was edited by hand and `force` is not given; nothing is written then.
    """
    target = folder / model.name
    new = texts(model, arguments, folder.resolve().name)
    old = {name: _read(target / name) for name in new if (target / name).exists()}
    edited = [name for name in old if name != TRAIN_SCRIPT and old[name] != new[name] and is_edited(old[name])]
    if edited and not force:
        raise NetError(f"{target / edited[0]} was edited by hand: keep it, or add --force to write over it")
    changed = [name for name in new if old.get(name) != new[name]]
    for name in changed:
        files.write_text(target / name, new[name])
        (target / name).chmod(0o755 if name == TRAIN_SCRIPT else 0o644)
    return [target / name for name in changed]


def differing(model: Model, folder: Path, arguments: str = "") -> list[Path]:
    """The files of `folder`/<model> that are missing or not what `write` would make."""
    target = folder / model.name
    return [
        target / name
        for name, text in texts(model, arguments, folder.resolve().name).items()
        if not (target / name).exists() or _read(target / name) != text
    ]


def _read(path: Path) -> str:
    """The text of a file; of one that is not UTF-8, which nothing here wrote, "": edited, and unlike any other."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""
