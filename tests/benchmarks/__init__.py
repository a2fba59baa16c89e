"""Times beside those of stock Caffe and PyTorch.

benchmark, benchmark_tables: layers side by side; as tables.
net_benchmark, net_tables, net_figure: whole nets side by side; as tables; as bars.
net_cases, net_programs, net_progress: nets made ready for it; a round in a process of its own; what is on.
layer_work, layer_shares, layer_tables: what a layer must compute and move; its time beside that; as tables.
timing, torch_layers, torch_nets: a layer or net timed by Caffe, and copies; layers by PyTorch; nets.
data_timing: images a second through the data layers.
gpu_memory: how much of a GPU's memory is in use.
wide_page: what the tables are printed on.
"""
