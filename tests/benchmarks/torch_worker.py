"""Layers and nets timed by PyTorch: a program that needs only a Python with torch.

programs.Torch runs `PYTHON torch_worker.py THREADS`. It prints {"version", "memory"} and answers each JSON line of
stdin with one line of JSON:
    {"layer": "PReLU" | "LReLU", "shape", "in_place", "iterations"} -> {"forward": ms, "backward": ms}
    {"copy": bytes, "iterations"} -> {"ms"}
    a case of cases.py, the fields of programs.How, "task" -> {"ms", "iterations", "value", "parameters", "memory"}
An iteration of training is forward, backward and update, and "value" is the last loss. An iteration of inference ends
in probabilities, and "value" is their sum. "memory" is the peak of resident bytes. Tensors of nets are channels_last,
which is faster; on a GPU cuDNN chooses its algorithms in the warm-up.
"""

import json
import math
import sys
import time

import torch
from torch import nn
from torch.nn import functional


def layer_times(layer, shape, in_place, iterations):
    """Mean milliseconds of the forward and the backward pass, which returns new gradients."""
    bottom = torch.randn(shape, requires_grad=True)
    slopes = torch.full((shape[1],), 0.25, requires_grad=True)
    gradient = torch.ones(shape)
    forward = backward = 0.0
    for iteration in range(iterations + 1):
        value = bottom.clone() if in_place else bottom  # a leaf cannot be changed in place
        start = time.perf_counter()
        if layer == "PReLU":
            top = functional.prelu(value, slopes)
        else:
            top = functional.leaky_relu(value, 0.01, inplace=in_place)
        middle = time.perf_counter()
        torch.autograd.grad(top, (bottom, slopes) if layer == "PReLU" else (bottom,), gradient)
        end = time.perf_counter()
        if iteration:
            forward += middle - start
            backward += end - middle
    return {"forward": 1000 * forward / iterations, "backward": 1000 * backward / iterations}


def copy_time(size, iterations):
    """Mean milliseconds of a copy of `size` bytes."""
    source = torch.ones(size // 4)
    target = torch.zeros_like(source)
    target.copy_(source)
    start = time.perf_counter()
    for _ in range(iterations):
        target.copy_(source)
    return {"ms": 1000 * (time.perf_counter() - start) / iterations}


class Scale(nn.Module):
    """A multiplication by a constant."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


def sequential(layers):
    """The module of a chain of layers, on three channels."""
    modules, channels = [], 3
    for layer in layers:
        kind = layer["type"]
        if kind == "Convolution":
            modules.append(nn.Conv2d(channels, layer["outputs"], layer["kernel"], padding=layer["pad"]))
            channels = layer["outputs"]
        elif kind == "InnerProduct":
            modules += [nn.Flatten(), nn.Linear(layer["inputs"], layer["outputs"])]
        elif kind == "Pooling":
            modules.append(nn.MaxPool2d(layer["kernel"], layer["stride"], ceil_mode=True))
        elif kind == "PReLU":
            modules.append(nn.PReLU(channels))
        elif kind == "LReLU":
            modules.append(nn.LeakyReLU(layer["slope"], inplace=True))
        else:
            plain = {"ReLU": nn.ReLU, "Dropout": nn.Dropout, "Power": Scale}[kind]
            modules.append(plain(*(layer[key] for key in ("ratio", "scale") if key in layer)))
    return nn.Sequential(*modules)


def net_times(wanted):
    """Answer a question about a net."""
    device = torch.device("cpu" if wanted["gpu"] is None else f"cuda:{wanted['gpu']}")
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = wanted["tf32"]
        torch.backends.cudnn.deterministic = wanted["deterministic"]
        torch.backends.cudnn.benchmark = not wanted["deterministic"]
    torch.manual_seed(1)
    net = sequential(wanted["layers"]).to(device, memory_format=torch.channels_last)
    images = 60 * torch.randn(wanted["batch"], 3, wanted["side"], wanted["side"])
    images = images.to(device, memory_format=torch.channels_last)
    labels = torch.randint(wanted["classes"], (len(images),)).to(device)
    rates = {"lr": wanted["base_lr"], "momentum": wanted["momentum"], "weight_decay": wanted["weight_decay"]}
    optimizer = torch.optim.SGD(net.parameters(), **rates)
    net.train(wanted["task"] == "training")

    def iterate():
        if not net.training:
            with torch.inference_mode():
                return net(images).softmax(1).sum()
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def timed(iterations):
        start = time.perf_counter()
        for _ in range(iterations):
            value = iterate()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return value, (time.perf_counter() - start) / iterations

    half = wanted["warm_up"] // 2  # the first half allocates memory and chooses algorithms
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


def peak_memory():
    """Peak resident bytes of this process."""
    with open("/proc/self/status") as lines:
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def main():
    """Answer questions until stdin ends."""
    torch.set_num_threads(int(sys.argv[1]))
    print(json.dumps({"version": torch.__version__, "memory": peak_memory()}), flush=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        if "copy" in wanted:
            answer = copy_time(wanted["copy"], wanted["iterations"])
        else:
            answer = layer_times(**wanted) if "layer" in wanted else net_times(wanted)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
