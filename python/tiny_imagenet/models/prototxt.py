"""Reading prototxt: messages, the positions of their fields, every syntax error with its place."""

from __future__ import annotations

import bisect
import os
import re
from collections import Counter
from pathlib import Path
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from tiny_imagenet.cli import did_you_mean
from tiny_imagenet.errors import NetError

M = TypeVar("M", bound=Message)
Position = tuple[int, int]  # line and column, both from 1
_TOKEN = re.compile(
    r"""\s+ | \#[^\n]* | ( "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' | [{}<>\[\]:,;] | [^\s{}<>\[\]:,;\#"']+ | . )""",
    re.VERBOSE,
)
_MOST_ERRORS = 20  # that are reported of one file


class PrototxtError(NetError):
    """A prototxt with syntax errors; the message is the first of them as path:line:column: text.

    Attributes:
        errors: (line, column, text) of each, in order.
    """

    def __init__(self, path: str | os.PathLike[str], errors: list[tuple[int, int, str]]):
        line, column, text = errors[0]
        super().__init__(f"{path}:{line}:{column}: {text}")
        self.errors = errors


def read_text(path: str | os.PathLike[str]) -> str:
    """Return the text of a file.

    Raises:
        NetError: the file cannot be read or is not text.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise NetError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise NetError(f"{path} is not a text file: expected a prototxt") from error


def read(into: M, path: str | os.PathLike[str]) -> M:
    """Read a prototxt into the message `into` and return it.

    Raises:
        NetError: the file cannot be read; PrototxtError: it does not parse.
    """
    parse(into, read_text(path), path)
    return into


def parse(into: Message, text: str, path: str | os.PathLike[str]) -> dict[str, Position]:
    """Read prototxt text into the message `into`; `path` is for error messages.

    Returns:
        The position of each field: {"layer[2].top[0]": (17, 3), ...}.

    Raises:
        PrototxtError: the text does not parse.
    """
    scan = _Scan(text, into.DESCRIPTOR)
    try:
        text_format.Parse(text, into)
    except text_format.ParseError as error:
        raise PrototxtError(path, _errors(text, scan, type(into)) or [_said(error, text)]) from error
    return {name: scan.position(start) for name, start, _ in scan.fields}


def top_fields(text: str) -> list[str]:
    """Return the names of the top-level fields of a prototxt, known or not."""
    return _Scan(text, None).top


def _errors(text: str, scan: _Scan, kind: type[Message]) -> list[tuple[int, int, str]]:
    """All syntax errors: each field with an error is blanked, and the rest is parsed again."""
    found = [(*scan.position(start), what) for start, _, what in scan.errors]
    if scan.broken:  # what follows has lost its place
        return sorted(found)
    for start, end, _ in scan.errors:
        text = _blank(text, start, end)
    while len(found) < _MOST_ERRORS:
        try:
            text_format.Parse(text, kind())
            break
        except text_format.ParseError as error:
            place = _said(error, text)
            if place[0] not in {line for line, _, _ in found}:  # a second one in a line often follows from the first
                found.append(place)
            offset = scan.offset(*place[:2])
            around = [(start, end) for _, start, end in scan.fields if start <= offset < end and text[start] != " "]
            if not around:
                break
            text = _blank(text, *max(around))
    return sorted(found)


def _said(error: text_format.ParseError, text: str) -> tuple[int, int, str]:
    line, column = error.GetLine() or 1, error.GetColumn() or 1
    lines = text.splitlines() or [""]
    what = str(error).removeprefix(f"{line}:{column} : ").removeprefix(f"'{lines[min(line, len(lines)) - 1]}': ")
    return line, column, " ".join(what.split())


def _blank(text: str, start: int, end: int) -> str:
    return text[:start] + re.sub(r"[^\n]", " ", text[start:end]) + text[end:]


class _Scan:
    """The fields of a prototxt, found by its tokens alone: text that does not parse has them too.

    Attributes:
        fields: (path, start, end) of each known field.
        top: names of the top-level fields.
        errors: (start, end, text) of unknown fields and values.
        broken: whether a brace is missing.
    """

    def __init__(self, text: str, descriptor):
        self.fields: list[tuple[str, int, int]] = []
        self.top: list[str] = []
        self.errors: list[tuple[int, int, str]] = []
        self.broken = False
        self._tokens = [(match[1], match.start(1)) for match in _TOKEN.finditer(text) if match[1]]
        self._next = 0
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]
        while self._next < len(self._tokens) and not self.broken:  # a } too many ends a pass
            self._message(descriptor, "", top=True)

    def position(self, offset: int) -> Position:
        line = bisect.bisect_right(self._lines, offset)
        return line, offset - self._lines[line - 1] + 1

    def offset(self, line: int, column: int) -> int:
        return self._lines[min(line, len(self._lines)) - 1] + column - 1

    def _peek(self) -> str:
        return self._tokens[self._next][0] if self._next < len(self._tokens) else ""

    def _take(self) -> str:
        self._next += 1
        return self._tokens[self._next - 1][0] if self._next <= len(self._tokens) else ""

    def _end(self) -> int:
        token, start = self._tokens[min(self._next, len(self._tokens)) - 1]
        return start + len(token)

    def _message(self, descriptor, prefix: str, top: bool = False) -> None:
        counts: Counter[str] = Counter()
        while self._peek() and not self.broken:
            name, start = self._take(), self._tokens[self._next - 1][1]
            if name in "}>":
                return
            if name in ",;":
                continue
            if top:
                self.top.append(name)
            field = descriptor.fields_by_name.get(name) if descriptor else None
            if self._peek() == ":":
                self._take()
            if descriptor and not field:
                if name in ("layer", "layers") and not top:
                    self.errors.append((start, start, f"unexpected {name}: is a }} missing before it?"))
                    self.broken = True
                    return
                number = len(self.errors)
                self._values(None, None, "", start)
                what = f"unknown field {name!r} of {descriptor.name}."
                if not name.isascii():
                    what = f"unexpected {name!r}: use plain quotes and minus signs"
                self.errors.insert(number, (start, self._end(), what + did_you_mean(name, descriptor.fields_by_name)))
            else:
                self._values(field, counts, prefix + name, start)
        if not top and not self.broken:
            self.errors.append((self._end() - 1, self._end(), "the text ends here: is a } missing?"))
            self.broken = True

    def _values(self, field, counts: Counter[str] | None, path: str, start: int) -> None:
        """Take the values of a field: one, or a list of them."""
        many = self._peek() == "["
        while not self.broken:
            if many:
                self._take()  # [ or ,
                start = self._tokens[self._next][1] if self._next < len(self._tokens) else start
            name = path
            if field is not None and field.is_repeated:
                name = f"{path}[{counts[field.name]}]"
                counts[field.name] += 1
            number = len(self.fields)
            if not (many and self._peek() == "]"):
                self._value(field, f"{name}.", start)
                if field is not None:
                    self.fields.insert(number, (name, start, self._end()))
            if not many or self._peek() != ",":
                break
        if many and self._peek() == "]":
            self._take()

    def _value(self, field, prefix: str, start: int) -> None:
        token = self._take()
        if token in ("{", "<"):
            self._message(field.message_type if field is not None else None, prefix)
        elif token in ("'", '"'):
            self.errors.append((self._end() - 1, self._end(), "the closing quote of this text is missing"))
            self.broken = True
        elif token[:1] in ("'", '"'):
            while self._peek()[:1] in ("'", '"') and self._peek():
                self._take()
        elif token == "-":
            self._take()
        elif token in ("}", ">"):  # no value: the brace closes the message
            self._next -= 1
        elif not token.isascii():
            self.errors.append((start, self._end(), f"unexpected {token!r}: use plain quotes and minus signs"))
        elif field is not None and field.enum_type and re.fullmatch(r"[A-Za-z_]\w*", token):
            known = field.enum_type.values_by_name
            if token not in known:
                what = f"unknown value {token} of {field.name}, expected one of {', '.join(known)}."
                self.errors.append((start, self._end(), (what + did_you_mean(token, known)).rstrip(".")))
