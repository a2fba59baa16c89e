#!/usr/bin/env python3
"""Run the paper's experiment on a data folder: every model with its stages, evaluation, ensembles, Table 2."""

import functools
import sys
from pathlib import Path

import _venv  # noqa: F401
from tiny_imagenet import cli
from tiny_imagenet.errors import TinyImageNetError
from tiny_imagenet.experiment import schedulers
from tiny_imagenet.models import zoo

PROTOTXT = Path(__file__).resolve().parent.parent / "prototxt"


def main():
    parser = cli.Parser(__doc__, "tools/reproduce.py --data data --out runs/paper --seeds 3")
    parser.add_argument("models", metavar="MODEL", nargs="*", help=f"{zoo.NAMES} (default: all)")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder written by tools/convert.py")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of runs and table; finished steps are skipped"
    )
    parser.add_argument("--seeds", type=cli.positive_int, default=1, metavar="N", help="trainings per model (1)")
    parser.add_argument("--first-seed", type=cli.count, default=1, metavar="S", help="first of the seeds (1)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=cli.positive_int, metavar="N", help="epochs per training (the solvers')")
    length.add_argument("--max-iter", type=cli.positive_int, metavar="N", help="iterations per training")
    parser.add_argument("--batch", type=cli.positive_int, metavar="N", help="images per iteration (the files')")
    parser.add_argument("--base-lr", type=cli.positive_float, metavar="RATE", help="initial rate (the files')")
    parser.add_argument("--no-stages", action="store_true", help="train deep nets from random weights at once")
    cli.add_gpus(parser, "train on these GPUs, which share each batch, and evaluate on the first (the CPU)")
    parser.add_argument("--quiet", action="store_true", help="print no progress of the trainings")
    schedulers.add_scheduler(parser, "train on the workers of a Dask cluster, several models at once")
    parser.add_argument("--workers", type=cli.positive_int, metavar="N", help="local or slurm: workers to start (2)")
    args = parser.parse_args()
    from tiny_imagenet.training import mpi  # after the arguments: Caffe takes a moment to load

    started = mpi.launched()
    if started:
        mpi.let_rank_0_speak()
        parser.error(
            f"{started.launcher} started {started.size} processes, but an experiment is one: run it without "
            f"{started.launcher}; --scheduler trains several models at once"
        )
    schedulers.check_arguments(parser, args.scheduler, args.workers)
    gpus = args.gpus or ()
    if args.workers and not args.scheduler:
        parser.error("--workers needs --scheduler local or slurm")
    if args.scheduler and gpus != tuple(range(len(gpus))):
        parser.error("with --scheduler, --gpu counts the GPUs of each worker from 0: use 0, or 0,1 and so on")
    if args.scheduler and not gpus and (args.tf32, args.deterministic) != (None, None):
        parser.error("--tf32 and --deterministic need the GPUs of each worker: add --gpu 0")
    names = args.models or list(zoo.MODELS)
    for name in names:
        zoo.get(name)

    from tiny_imagenet.experiment import reproduce, table2  # after the arguments: loading Caffe takes a moment
    from tiny_imagenet.training.options import Options

    options = Options(
        data=args.data,
        run=args.out,
        epochs=args.epochs,
        max_iter=args.max_iter,
        batch=args.batch,
        base_lr=args.base_lr,
        staged=not args.no_stages,
        gpus=args.gpus,
        tf32=args.tf32,
        deterministic=args.deterministic,
        quiet=args.quiet or bool(args.scheduler),
        prototxt=PROTOTXT,
    )
    run_steps = reproduce.run_here
    if args.scheduler:
        from tiny_imagenet.experiment import dask_steps

        cluster = {"scheduler": args.scheduler, "workers": args.workers, "gpus": len(gpus), "quiet": args.quiet}
        run_steps = functools.partial(dask_steps.run, **cluster)
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    rows = reproduce.reproduce(args.out, options, names, seeds, run_steps)
    sys.stdout.write(table2.markdown(rows))
    failed = sum(len(row.failed) for row in rows)
    if failed:
        raise TinyImageNetError(f"{failed} trainings failed (see {args.out}/table2.md): the same command retries them")


if __name__ == "__main__":
    cli.run(main)
