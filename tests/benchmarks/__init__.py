"""Benchmarks of our layers and nets against stock Caffe and PyTorch, for tools/benchmark.py.

layers, nets, where: the three subjects; each returns one result for JSON and tables.
cases: nets with generated data, as prototxt and as lists of layers.
programs, torch_worker: a single measurement by a caffe program or by PyTorch.
gpu_memory: memory in use on a GPU.
tables, figure: results as text, Markdown and bars.
"""
