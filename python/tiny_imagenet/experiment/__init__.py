"""The paper's whole experiment: every model, seed and ensemble.

reproduce, graph: what is to be done; its steps, and what each waits for.
table2: Table 2, the paper's beside ours.
address, claims, connection, dask_graph, pool, schedulers, step_process, worker: to be sorted.
"""
