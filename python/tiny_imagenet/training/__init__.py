"""Training: a run from its options to its checkpoints.

options, train: options and their flags; a whole training.
jobs, plan: the nets that a run trains; one net fitted to its data.
loop, solving, schedule: the training loop; a rank's solver; learning-rate schedules.
progress, provenance: console, metrics and events; versions and machine of a run.
ranks, rank_consistency: processes that train together; the facts they must share.
spawn, mpi: ranks on the GPUs of one machine; ranks started by mpirun or srun.
"""
