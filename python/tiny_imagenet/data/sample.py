"""Writes a small data set of handwritten digits in Tiny ImageNet's layout.

The 1,797 digits of scikit-learn (8x8 pixels) are drawn bright, at random sizes and positions, on a dark textured
background. Training, validation and test images use different digits.
"""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from tiny_imagenet import cli, files
from tiny_imagenet.data.images import SIZE
from tiny_imagenet.data.splits import FOLDERS
from tiny_imagenet.errors import DatasetError

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CLASSES = len(WORDS)
WNIDS = tuple(f"n{index:08d}" for index in range(CLASSES))

_SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}  # fractions of the source digits
_SMALL = {"train": 0.03, "val": 0.01, "test": 0.01}  # objects under 8x8 pixels
_CORNER = 0.05  # training objects in a corner, for screening
_GREY = 0.02
_MARGIN = (SIZE - 56) // 2


def write(out: str | os.PathLike[str], train: int = 4000, val: int = 500, test: int = 500, seed: int = 0) -> None:
    """Write `train`, `val` and `test` JPEG images of 64x64 pixels to the new folder `out`.

    Classes have equal numbers of images, up to one. About 3 % of the training objects are under 8x8 pixels, 5 % are
    in a corner, where screening drops some of them, and 2 % of all files are grayscale. Boxes are the tight bounds of
    the digits. The same arguments give the same bytes.

    Raises:
        DatasetError: a split has fewer images than there are classes, or the seed is negative.
        TinyImageNetError: `out` is not empty or cannot be written.
    """
    counts = {"train": train, "val": val, "test": test}
    for split, count in counts.items():
        if count < CLASSES:
            raise DatasetError(f"expected at least {CLASSES} {split} images, one per class, got {count}")
    if seed < 0:
        raise DatasetError(f"expected a seed of at least 0, got {seed}")
    sources = _sources(seed)
    with files.atomic_folder(out) as folder:
        (folder / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in WNIDS))
        (folder / "words.txt").write_text("".join(f"{wnid}\t{words}\n" for wnid, words in zip(WNIDS, WORDS)))
        for number, split in enumerate(FOLDERS):
            rng = np.random.default_rng([seed, number])
            _write_split(folder / split, split, counts[split], sources[split], rng)


def _sources(seed: int) -> dict[str, list[list[np.ndarray]]]:
    """Return the digits of each split and class, cropped to their bounds, float32 from 0 to 1."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    rng = np.random.default_rng(seed)
    sources: dict[str, list[list[np.ndarray]]] = {split: [] for split in FOLDERS}
    for label in range(CLASSES):
        members = rng.permutation(np.flatnonzero(digits.target == label))
        first = 0
        for split in FOLDERS:
            last = first + int(_SHARES[split] * len(members))
            sources[split].append([_cut(digits.images[index]) for index in members[first:last]])
            first = last
    return sources


def _cut(digit: np.ndarray) -> np.ndarray:
    x0, y0, x1, y1 = _bounds(digit >= 4)
    return (digit[y0 : y1 + 1, x0 : x1 + 1] / 16).astype(np.float32)


def _bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    columns = np.flatnonzero(mask.any(axis=0))
    rows = np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def _write_split(
    folder: Path, split: str, count: int, sources: list[list[np.ndarray]], rng: np.random.Generator
) -> None:
    labels = np.arange(count) % CLASSES
    if split == "train":
        labels.sort()
    else:
        rng.shuffle(labels)
    drawn = [0] * CLASSES
    lines: dict[str, list[str]] = {}
    for index, label in enumerate(cli.track(labels.tolist(), count, f"drawing {split}")):
        number = drawn[label]
        drawn[label] += 1
        digit = sources[label][number % len(sources[label])]
        image, box = _draw(digit, split, rng)
        wnid = WNIDS[label]
        corners = "\t".join(map(str, box))
        if split == "train":
            path = folder / wnid / "images" / f"{wnid}_{number}.JPEG"
            lines.setdefault(f"{wnid}/{wnid}_boxes.txt", []).append(f"{path.name}\t{corners}\n")
        else:
            path = folder / "images" / f"{split}_{index}.JPEG"
            if split == "val":
                lines.setdefault("val_annotations.txt", []).append(f"{path.name}\t{wnid}\t{corners}\n")
        if not number or index == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())
    for name, rows in lines.items():
        (folder / name).write_text("".join(rows))


def _draw(digit: np.ndarray, split: str, rng: np.random.Generator) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Return an image of the digit, uint8 64x64x3 (gray: 64x64), and the digit's box."""
    kind = rng.random()
    corner = False
    if kind < _SMALL[split]:
        height = int(rng.integers(6, 9))
    elif split == "train" and kind < _SMALL[split] + _CORNER:
        height = int(rng.integers(9, 20))
        corner = True
    else:
        height = round(rng.triangular(28, 44, 48))
    aspect = digit.shape[1] / digit.shape[0] * rng.uniform(0.95, 1.15)
    width = int(np.clip(round(height * aspect), 3, 48 if height > 8 else 7))

    alpha = np.zeros((SIZE, SIZE), np.float32)
    inside = (0, SIZE) if split == "train" else (_MARGIN, SIZE - _MARGIN)
    x, y = (_place(length, inside, corner, rng) for length in (width, height))
    scaled = cv2.resize(digit, (width, height), interpolation=cv2.INTER_CUBIC if height > 8 else cv2.INTER_LINEAR)
    alpha[y : y + height, x : x + width] = np.clip((scaled / scaled.max() - 0.15) / 0.7, 0, 1)
    box = _bounds(alpha >= 0.5)

    hue = rng.uniform(-1, 1, 3)
    ink = 185 + 25 * hue
    picture = _ground(rng)
    picture += alpha[:, :, None] * (ink - picture)
    image = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    if rng.random() < _GREY:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return image, box


def _place(length: int, inside: tuple[int, int], corner: bool, rng: np.random.Generator) -> int:
    low, high = inside[0], inside[1] - length
    if corner:
        offset = int(rng.integers(0, 3))
        return low + offset if rng.random() < 0.5 else high - offset
    # The mean of several draws: objects are mostly near the center, as in photographs.
    return round(rng.integers(low, high + 1, 4).mean())


def _ground(rng: np.random.Generator) -> np.ndarray:
    """Return a dark background, float32 64x64x3: a gradient of two colours, with coarse and fine noise."""
    colours = rng.uniform(45, 90, (2, 3))
    angle = rng.uniform(0, 2 * np.pi)
    steps = np.linspace(-0.5, 0.5, SIZE)
    slope = np.clip(0.5 + 0.8 * (np.cos(angle) * steps[None, :] + np.sin(angle) * steps[:, None]), 0, 1)
    coarse = cv2.resize(rng.normal(0, 6, (9, 9, 3)).astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    fine = rng.normal(0, 3, (SIZE, SIZE, 1))
    return (colours[0] + slope[:, :, None] * (colours[1] - colours[0]) + coarse + fine).astype(np.float32)
