"""Several processes that train one model together; it knows nothing of what they train.

ranks, rank_links, gpu_ranks: what training needs of ranks; ranks over pipes; over NCCL.
launch: how a process was started, and its place among the others.
mpi_ranks: ranks over MPI, on several machines.
mpi_thread, mpi_operation: what talks MPI; step by step.
mpi_mail, mpi_watch: what ranks tell each other in between; who is still there.
buckets, scaling: how gradients travel; what that costs on how many machines.
"""
