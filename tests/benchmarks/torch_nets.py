"""A chain of layers in PyTorch, trained or run and timed: a program of its own, for any Python that has torch.

Run by timing.Torch as `PYTHON -c <this text> THREADS`. It prints {"version": ..., "memory": bytes} and then answers
each line of stdin, one JSON object, with a line of JSON:
    {"layers": [...], "batch": N, "side": pixels, "classes": N, "task": "training" | "inference",
     "gpu": number | null, "tf32": bool, "deterministic": bool, "base_lr", "momentum", "weight_decay": numbers,
     "warm_up": N, "iterations": N | null, "seconds": number}
     -> {"ms": of an iteration, "iterations": N, "value": number, "parameters": N, "memory": bytes}
A layer is {"type": ...} with what that has (`layer` below). An iteration of training is a forward pass, a backward pass
and an update, and "value" is the last loss; one of inference is a forward pass without gradients that ends in
probabilities, and "value" is the sum of them all. After the warm-up it times so many iterations, or without a number as
many as take `seconds`. "memory" is the most that was resident of this process. The tensors are channels_last, which is
faster on processors and GPUs alike; on a GPU cuDNN tries its algorithms in the warm-up.
"""

import json
import math
import sys
import time

import torch
from torch import nn


def layer(wanted, inputs):
    """The module of a layer and its outputs, where it takes `inputs` channels or values."""
    kind = wanted["type"]
    if kind == "Convolution":
        return nn.Conv2d(inputs, wanted["outputs"], wanted["kernel"], padding=wanted["pad"]), wanted["outputs"]
    if kind == "InnerProduct":
        return nn.Sequential(nn.Flatten(), nn.Linear(wanted["inputs"], wanted["outputs"])), wanted["outputs"]
    modules = {
        "ReLU": lambda: nn.ReLU(inplace=True),
        "LReLU": lambda: nn.LeakyReLU(wanted["slope"], inplace=True),
        "PReLU": lambda: nn.PReLU(inputs),
        "Dropout": lambda: nn.Dropout(wanted["ratio"]),
        "Pooling": lambda: nn.MaxPool2d(wanted["kernel"], wanted["stride"], ceil_mode=True),
        "Power": lambda: Scale(wanted["scale"]),
    }
    return modules[kind](), inputs


class Scale(nn.Module):
    """A product with a number."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


def net_times(wanted):
    """The answer to a question: see above."""
    device = torch.device("cpu" if wanted["gpu"] is None else f"cuda:{wanted['gpu']}")
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = wanted["tf32"]
        torch.backends.cudnn.deterministic = wanted["deterministic"]
        torch.backends.cudnn.benchmark = not wanted["deterministic"]
    modules, channels = [], 3
    for description in wanted["layers"]:
        module, channels = layer(description, channels)
        modules.append(module)
    torch.manual_seed(1)
    net = nn.Sequential(*modules).to(device, memory_format=torch.channels_last)
    images = 60 * torch.randn(wanted["batch"], 3, wanted["side"], wanted["side"])
    images = images.to(device, memory_format=torch.channels_last)
    once = training(net, images, wanted) if wanted["task"] == "training" else inference(net, images)

    def timed(iterations):
        begin = time.perf_counter()
        for _ in range(iterations):
            value = once()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return value, (time.perf_counter() - begin) / iterations

    half = wanted["warm_up"] // 2  # the first half allocates and chooses
    timed(wanted["warm_up"] - half)
    _, seconds = timed(half)
    iterations = wanted["iterations"] or max(1, math.ceil(wanted["seconds"] / seconds))
    value, seconds = timed(iterations)
    return {
        "ms": 1000 * seconds,
        "iterations": iterations,
        "value": float(value),
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "memory": peak_memory(),
    }


def training(net, images, wanted):
    """What trains a net by one iteration and gives its loss."""
    labels = torch.randint(wanted["classes"], (len(images),)).to(images.device)
    rates = {"lr": wanted["base_lr"], "momentum": wanted["momentum"], "weight_decay": wanted["weight_decay"]}
    optimizer = torch.optim.SGD(net.parameters(), **rates)

    def once():
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return once


def inference(net, images):
    """What runs a net forward once and gives the sum of its probabilities."""
    net.eval()

    def once():
        with torch.inference_mode():
            return net(images).softmax(1).sum()

    return once


def peak_memory():
    """The most bytes that were resident of this process."""
    with open("/proc/self/status") as lines:
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def main():
    """Answer until stdin ends."""
    torch.set_num_threads(int(sys.argv[1]))
    print(json.dumps({"version": torch.__version__, "memory": peak_memory()}), flush=True)
    for line in sys.stdin:
        print(json.dumps(net_times(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
