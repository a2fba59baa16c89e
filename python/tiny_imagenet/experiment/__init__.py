"""The paper's experiment: every model, seed and ensemble.

reproduce: the steps of an experiment, run one after the other.
table2: Table 2, the paper's next to ours.
schedulers: the flags --scheduler and --workers.
cluster: connection to a Dask cluster.
dask_steps: steps run by Dask.
worker: functions that run in a Dask worker.
step_process: child process of a worker.
"""
