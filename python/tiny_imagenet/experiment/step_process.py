"""Child process of a Dask worker that runs one step; neither crashes nor Caffe's memory reach the worker.

The parent writes the pickled step to stdin. If the step fails, the exit status is 1 and stdout contains the error.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
import traceback

from tiny_imagenet import runs, stop
from tiny_imagenet.errors import TinyImageNetError

LOCK = 120.0  # seconds to wait for the lock of a run, which a lost worker's training may still hold


def main() -> int:
    """Run the step that stdin contains."""
    stop.end_with_parent()
    if os.getppid() != int(sys.argv[1]):
        return 1
    output = os.dup(1)
    os.dup2(2, 1)  # output of the step goes to the worker's log
    try:
        step = pickle.load(sys.stdin.buffer)
        until = time.monotonic() + LOCK
        while runs.in_use(step.run.path) and time.monotonic() < until:
            time.sleep(0.5)
        step()
    except TinyImageNetError as error:
        text = str(error)
    except Exception as error:  # of Caffe, memory or disk
        traceback.print_exc()
        text = f"{type(error).__name__}: {error}"
    else:
        return 0
    os.write(output, text.encode())
    return 1


if __name__ == "__main__":
    sys.exit(main())
