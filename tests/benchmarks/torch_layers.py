"""PyTorch's rectifiers and copy, timed: a program of its own, for any Python that has torch.

Run by timing.Torch as `PYTHON -c <this text> THREADS`. It prints {"version": ...} and then answers each line of stdin,
one JSON object, with a line of JSON:
    {"layer": "PReLU" | "LReLU", "shape": [...], "in_place": bool, "iterations": N} -> {"forward": ms, "backward": ms}
    {"copy": bytes, "iterations": N} -> {"ms": ms}
Times are means over the iterations, after one more that does not count.
"""

import json
import sys
import time

import torch
from torch.nn import functional


def layer_times(layer, shape, in_place, iterations):
    """Mean milliseconds of a forward and of a backward pass; the gradients are returned, not added to others."""
    bottom = torch.randn(shape, requires_grad=True)
    slopes = torch.full((shape[1],), 0.25, requires_grad=True)
    gradient = torch.ones(shape)
    wanted = (bottom, slopes) if layer == "PReLU" else (bottom,)
    forward = backward = 0.0
    for iteration in range(iterations + 1):
        # In place needs a value that is no leaf. The gradient passes through the clone as it is.
        value = bottom.clone() if in_place else bottom
        begin = time.perf_counter()
        if layer == "PReLU":
            top = functional.prelu(value, slopes)
        else:
            top = functional.leaky_relu(value, 0.01, inplace=in_place)
        middle = time.perf_counter()
        torch.autograd.grad(top, wanted, gradient)
        end = time.perf_counter()
        del top, value
        if iteration:
            forward += middle - begin
            backward += end - middle
    return {"forward": 1000 * forward / iterations, "backward": 1000 * backward / iterations}


def copy_time(size, iterations):
    """Mean milliseconds of a copy of `size` bytes."""
    source = torch.ones(size // 4)
    target = torch.zeros_like(source)
    target.copy_(source)
    begin = time.perf_counter()
    for _ in range(iterations):
        target.copy_(source)
    return {"ms": 1000 * (time.perf_counter() - begin) / iterations}


def main():
    """Answer until stdin ends."""
    torch.set_num_threads(int(sys.argv[1]))
    print(json.dumps({"version": torch.__version__}), flush=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        if "copy" in wanted:
            answer = copy_time(wanted["copy"], wanted["iterations"])
        else:
            answer = layer_times(wanted["layer"], wanted["shape"], wanted["in_place"], wanted["iterations"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
