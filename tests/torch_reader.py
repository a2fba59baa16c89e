"""Compute a net with PyTorch, as a reference; runs in a Python with torch.

    torch_reader.py FOLDER

reads FOLDER/net.json (layers) and FOLDER/in.npz (weights and inputs), and writes FOLDER/out.npz: blobs and gradients,
or with FOLDER/sgd.json the parameters after some SGD steps on the batch.
"""

import json
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (its own name for it)


def run(layers, values, dtype, parameters=None):
    if parameters is None:
        parameters = {key: torch.tensor(v, dtype=dtype, requires_grad=True) for key, v in values.items() if "/" in key}
    blobs = {key: torch.tensor(v, dtype=dtype) for key, v in values.items() if "/" not in key}
    for layer in layers:
        own = [parameters[f"{layer['name']}/{i}"] for i in range(layer["parameters"])]
        x = [blobs[bottom] for bottom in layer["bottom"]]
        kind = layer["type"]
        if kind in ("Input", "Data"):
            continue
        if kind == "Power":
            y = x[0] * layer["scale"]
        elif kind == "Convolution":
            y = F.conv2d(x[0], *own, padding=layer["pad"])
        elif kind == "InnerProduct":
            y = F.linear(x[0].flatten(1), *own)
        elif kind == "ReLU":
            y = F.relu(x[0])
        elif kind == "TanH":
            y = torch.tanh(x[0])
        elif kind == "LReLU":
            y = F.leaky_relu(x[0], layer["slope"])
        elif kind == "PReLU":
            y = F.prelu(x[0], own[0])
        elif kind == "Pooling":
            y = F.max_pool2d(x[0], 2, 2, ceil_mode=True)
        elif kind == "Dropout":
            y = x[0]
        elif kind == "Softmax":
            y = F.softmax(x[0], 1)
        elif kind == "SoftmaxWithLoss":
            y = F.cross_entropy(x[0], x[1].long())
        else:
            raise ValueError(f"unknown layer type {kind}")
        blobs[layer["top"]] = y
    return blobs, parameters


def train(layers, values, sgd):
    """Return the parameters after sgd["steps"] steps; sgd["groups"] contains the options of each parameter."""
    _, parameters = run(layers, values, torch.float64)
    groups = [{"params": [parameters[name]], **options} for name, options in sgd["groups"].items()]
    optimizer = torch.optim.SGD(groups, momentum=sgd["momentum"])
    for _ in range(sgd["steps"]):
        optimizer.zero_grad()
        run(layers, values, torch.float64, parameters)[0]["loss"].backward()
        optimizer.step()
    return parameters


def main(folder):
    with open(f"{folder}/net.json") as file:
        layers = json.load(file)
    values = dict(np.load(f"{folder}/in.npz"))
    if os.path.exists(f"{folder}/sgd.json"):
        with open(f"{folder}/sgd.json") as file:
            trained = train(layers, values, json.load(file))
        np.savez(f"{folder}/out.npz", **{name: value.detach().numpy() for name, value in trained.items()})
        return
    blobs, parameters = run(layers, values, torch.float64)
    result = {name: blob.detach().numpy() for name, blob in blobs.items() if name in ("prob", "loss")}
    if "loss" in blobs:
        blobs["loss"].backward()
        result |= {name: value.grad.numpy() for name, value in parameters.items()}
    np.savez(f"{folder}/out.npz", **result)


if __name__ == "__main__":
    main(sys.argv[1])
