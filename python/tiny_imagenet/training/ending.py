"""What is said of a training whose ranks did not end it by themselves."""

from __future__ import annotations

import os

from tiny_imagenet.runs import Run
from tiny_imagenet.training import console


def explain(text: str, folder: str | os.PathLike[str]) -> str:
    """What has happened, and how to go on with the run of a folder; in its log as well, where there is a run yet."""
    run = Run(folder)
    if run.started:
        checkpoint = run.resume_from()
        text += f"; the last good checkpoint is {checkpoint}" if checkpoint else ""
        text += ": the same command with --resume goes on"
        console.add_line(run.log_file, f"ended: {text}")
    return text
