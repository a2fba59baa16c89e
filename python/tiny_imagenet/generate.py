"""Writes prototxt/: each model's train_val, deploy and solver files and its train script.

Every generated prototxt opens with a comment that names what made it and a digest of what follows it. A file whose
digest no longer fits was edited by hand: it is left alone unless told otherwise.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from tiny_imagenet import files, nets, solvers
from tiny_imagenet.errors import NetError
from tiny_imagenet.zoo import Model

_DIGEST = "# digest: "
_FORMS = {
    "train_val.prototxt": "for training and validation",
    "deploy.prototxt": "for prediction: image in, probabilities out",
    "solver.prototxt": "how the net is trained",
}
TRAIN_SCRIPT = "train.sh"


def texts(model: Model, arguments: str = "") -> dict[str, str]:
    """The generated files of a model by name.

    Args:
        model: a row of the zoo or a variant of one.
        arguments: what tools/generate.py was given beside the model's name.
    """
    bodies = {
        "train_val.prototxt": nets.to_text(nets.build(model)),
        "deploy.prototxt": nets.to_text(nets.build(model, deploy=True)),
        "solver.prototxt": solvers.to_text(solvers.build(model)),
    }
    result = {name: _with_header(model, name, body, arguments) for name, body in bodies.items()}
    result[TRAIN_SCRIPT] = (
        "#!/bin/sh\n"
        f"# Train {model.name}: prototxt/{model.name}/{TRAIN_SCRIPT} --data DIR --run DIR (--help for the rest)\n"
        f'exec "$(dirname "$0")/../../tools/train.py" {model.name} "$@"\n'
    )
    return result


def _with_header(model: Model, name: str, body: str, arguments: str) -> str:
    number = model.name.replace("model", "Model ", 1)
    command = " ".join(f"tools/generate.py {model.name} {arguments}".split())
    return (
        f"# {number} of Tiny ImageNet Visual Recognition Challenge (Le and Yang), {_FORMS[name]}.\n"
        f"# {model.depth} layers with weights, {model.activation}, {model.parameters:,} parameters, "
        f"{model.classes} classes.\n"
        f"# Made by {command}. Edit it as you like: training reads it as it stands.\n"
        f"{_DIGEST}{_digest(body)}\n\n{body}"
    )


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
    new = texts(model, arguments)
    old = {name: _read(target / name) for name in new if (target / name).exists()}
    edited = [name for name in old if name != TRAIN_SCRIPT and old[name] != new[name] and is_edited(old[name])]
    if edited and not force:
        raise NetError(f"{target / edited[0]} was edited by hand: keep it, or add --force to write over it")
    changed = [target / name for name in new if old.get(name) != new[name]]
    for path in changed:
        files.write_text(path, new[path.name])
        path.chmod(0o755 if path.name == TRAIN_SCRIPT else 0o644)
    return changed


def differing(model: Model, folder: Path, arguments: str = "") -> list[Path]:
    """The files of `folder`/<model> that are missing or not what `write` would make."""
    target = folder / model.name
    return [
        target / name
        for name, text in texts(model, arguments).items()
        if not (target / name).exists() or _read(target / name) != text
    ]


def _read(path: Path) -> str:
    """The text of a file; of one that is not UTF-8, which nothing here wrote, "": edited, and unlike any other."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""
