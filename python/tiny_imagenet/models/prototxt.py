"""Reading prototxt: messages, the lines of their fields, errors that say where."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TypeVar

import caffe
from caffe import _caffe
from google.protobuf import text_format
from google.protobuf.message import Message

from tiny_imagenet.errors import NetError

M = TypeVar("M", bound=Message)
# A comment, a text, a brace, or a field's name.
_TOKENS = re.compile(r"""#[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[{}<>]|[A-Za-z_]\w*(?=\s*[:{<])""")


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file.

    Raises:
        NetError: it is missing or no text.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise NetError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise NetError(f"{path} is no text: a prototxt is expected") from error


def read(into: M, path: str | os.PathLike[str]) -> M:
    """Read a prototxt into the message `into` and return it.

    Raises:
        NetError: the file is missing or does not parse; the message says where, as path:line:column.
    """
    parse(into, read_text(path), path)
    return into


def parse(into: Message, text: str, path: str | os.PathLike[str]) -> dict[str, int]:
    """Read prototxt text into the NetParameter or SolverParameter `into`; `path` is for messages.

    Returns:
        The line of each field, counted from 1: {"layer[2].top[0]": 17, ...}.

    Raises:
        NetError: it does not parse: path:line:column: what is wrong.
    """
    try:
        lines = _caffe._inspect.places(text, into.DESCRIPTOR.name, os.fspath(path))
        text_format.Parse(text, into)
    except (caffe.CaffeError, text_format.ParseError) as error:
        raise NetError(" ".join(str(error).split())) from error
    return lines


def top_fields(text: str) -> list[str]:
    """The names of the fields at the top of a prototxt, whether they are any message's or not."""
    names, depth = [], 0
    for token in _TOKENS.findall(text):
        if token[0] in "{<":
            depth += 1
        elif token[0] in "}>":
            depth -= 1
        elif depth == 0 and token[0] not in "#\"'":
            names.append(token)
    return names
