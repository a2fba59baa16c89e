"""Training: a run from its options to its checkpoints.

train, trainer: a whole training; the loop.
fit, jobs: a net fitted to its data; what there is to train: stages and net, new or gone on with.
solving, follower, validation: a rank's solver, stepped and compared; what the ranks beside the first do; the
    validation split, shared out among the ranks.
schedule, snapshots: when the rate drops; checkpoints.
console, events, provenance: the live line; TensorBoard; what made a run.
supervisor, rank_main: one process a GPU, started, watched and ended; what it does.
mpi_train, accord: the same on several machines; what all must have in common.
ending: what is said where ranks did not end by themselves.
buckets, gpu_ranks, launch, mpi_mail, mpi_operation, mpi_ranks: to be sorted.
mpi_thread, mpi_watch, rank_links, ranks, scaling: to be sorted.
"""
