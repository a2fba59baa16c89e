"""Training: a run from its options to its checkpoints.

options, train: options and their flags; a whole training.
jobs, plan: the nets that a run trains; one net fitted to its data.
loop, solving, schedule: the training loop; a rank's solver; learning-rate schedules.
progress, provenance: console, metrics and events; versions and machine of a run.
ranks, launch, rank_consistency: ranks that train together; how they were started; what they must have in common.
buckets, gpu_ranks, mpi_mail, mpi_operation, mpi_ranks, mpi_thread, mpi_train, mpi_watch: transports.
rank_links, rank_main, scaling, supervisor: transports.
"""
