"""Reading prototxt: messages, the lines of their fields, errors that say where."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import TypeVar

import caffe
from caffe import _caffe
from caffe.proto import caffe_pb2
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
        text = " ".join(str(error).split())
        raise NetError(text + _advice(text)) from error
    return lines


def _advice(text: str) -> str:
    """What to do about a text that does not parse, where what the parser says does not tell."""
    if "Interpreting non ascii codepoint" in text:
        return " Write plain quotes and minus signs, as on a keyboard."
    if re.search(r"got: ?$", text):
        return " nothing: the text ends here, is a } missing?"
    unknown = re.search(r'Message type "caffe\.(\w+)" has no field named "(\w+)"', text)
    if not unknown:
        return ""
    message, name = unknown.groups()
    if message != "NetParameter" and name in ("layer", "layers"):
        return " Is a } missing before it?"
    fields = getattr(caffe_pb2, message).DESCRIPTOR.fields_by_name if hasattr(caffe_pb2, message) else ()
    close = difflib.get_close_matches(name, fields, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


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
