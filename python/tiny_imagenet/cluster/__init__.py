"""Dask: an experiment's steps, or images to decode, on other machines. README.md has MPI's side as well.

schedulers, address: the option --scheduler; what answers there.
connection, worker: a cluster and whether its workers are fit; what they do.
graph, pool: an experiment's steps there; batches of images there.
claims, step_process: which worker has a run, that of a lost one too; a step in a process of its own.
"""
