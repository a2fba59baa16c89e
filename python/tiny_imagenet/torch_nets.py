"""A chain of layers in PyTorch, trained and timed: a program of its own, for any Python that has torch.

Run by timing.Torch as `PYTHON -c <this text> THREADS`. It prints {"version": ...} and then answers each line of stdin,
one JSON object, with a line of JSON:
    {"layers": [...], "batch": N, "side": pixels, "classes": N, "gpu": number | null, "tf32": bool,
     "deterministic": bool, "base_lr", "momentum", "weight_decay": numbers, "rounds": N, "iterations": N}
     -> {"ms": [of an iteration, one a round], "parameters": N}
A layer is {"type": ...} with what that has (`layer` below). An iteration is a forward pass, a backward pass and an
update. On a GPU the tensors are channels_last and cuDNN tries its algorithms, in a first round that does not count.
"""

import json
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
    """Mean milliseconds of an iteration, round by round, and the number of parameters."""
    device = torch.device("cpu" if wanted["gpu"] is None else f"cuda:{wanted['gpu']}")
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = wanted["tf32"]
        torch.backends.cudnn.deterministic = wanted["deterministic"]
        torch.backends.cudnn.benchmark = not wanted["deterministic"]
    modules, channels = [], 3
    for description in wanted["layers"]:
        module, channels = layer(description, channels)
        modules.append(module)
    torch.manual_seed(1)
    layout = torch.channels_last if on_gpu else torch.contiguous_format
    net = nn.Sequential(*modules).to(device, memory_format=layout)
    images = 60 * torch.randn(wanted["batch"], 3, wanted["side"], wanted["side"])
    images = images.to(device, memory_format=layout)
    labels = torch.randint(wanted["classes"], (wanted["batch"],)).to(device)
    optimizer = torch.optim.SGD(
        net.parameters(), wanted["base_lr"], wanted["momentum"], weight_decay=wanted["weight_decay"]
    )

    def train():
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()

    times = []
    for _ in range(wanted["rounds"] + 1):
        begin = time.perf_counter()
        for _ in range(wanted["iterations"]):
            train()
        if on_gpu:
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - begin) / wanted["iterations"])
    return {"ms": times[1:], "parameters": sum(parameter.numel() for parameter in net.parameters())}


def main():
    """Answer until stdin ends."""
    torch.set_num_threads(int(sys.argv[1]))
    print(json.dumps({"version": torch.__version__}), flush=True)
    for line in sys.stdin:
        print(json.dumps(net_times(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
