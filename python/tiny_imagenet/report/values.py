"""Values of run.json, evaluation.json and the like as text for a page; "-" where one is missing or makes no sense."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

NONE = "-"


def number(value: Any) -> float | None:
    """A finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return value


def share(value: Any) -> float | None:
    """A number from 0 to 1, else None."""
    found = number(value)
    return found if found is not None and 0 <= found <= 1 else None


def percent(value: float | None) -> str:
    """A share in per cent, with two decimals."""
    return NONE if value is None else f"{100 * value:.2f}"


def integer(value: Any) -> str:
    """A number without decimals."""
    found = number(int(value) if isinstance(value, np.integer) else value)
    return NONE if found is None else f"{found:,.0f}"


def text(value: Any, otherwise: str = NONE) -> str:
    """A string that says something, else `otherwise`."""
    return value if isinstance(value, str) and value.strip() else otherwise


def flat(value: Any) -> str:
    """Any JSON value as a line of text."""
    if isinstance(value, Mapping):
        return join(f"{key} {flat(item)}" for key, item in value.items())
    if isinstance(value, list):
        return join(flat(item) for item in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return NONE if value is None or value == "" else str(value)


def join(parts: Iterable[str]) -> str:
    """Parts in a line."""
    return " · ".join(parts) or NONE


def inline(svg: str, prefix: str, label: str) -> Markup:
    """An <svg> element as part of a page: its ids its own, as wide as its place."""
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)
    svg = re.sub(r'\s(width|height)="[\d.]+pt"', "", svg, count=2)
    return Markup('<svg role="img" aria-label="{}"').format(label) + Markup(svg[len("<svg") :])
