#!/usr/bin/env python3
"""Train a model, or any other net, on a converted data set.

Started by mpirun or srun (--mpi=pmix), perhaps on many machines, all processes train one net together. This needs Open
MPI and mpi4py: tools/setup.sh --cluster.
"""

import sys
from pathlib import Path

import _venv  # noqa: F401
from tiny_imagenet import cli
from tiny_imagenet.training import options

PROTOTXT = Path(__file__).resolve().parent.parent / "prototxt"


class Parser(cli.Parser):
    """Only rank 0 reports a usage error."""

    def error(self, message):
        from tiny_imagenet.training import mpi

        mpi.let_rank_0_speak()
        super().error(message)


def main():
    parser = Parser(
        __doc__,
        "tools/train.py model1 --data data --run runs/model1 --epochs 10\n"
        "  tools/train.py --run runs/model1 --resume\n"
        "  tools/train.py model8 --data data --run runs/model8 --gpu 0,1,2,3\n"
        "  mpirun -n 4 --hostfile hosts .venv/bin/python tools/train.py model8 --data data --run runs/model8",
    )
    parser.add_argument(
        "source",
        metavar="MODEL|SOLVER",
        nargs="?",
        help="a model such as model1, a solver prototxt or its folder; not needed with --resume",
    )
    options.add_flags(parser)
    args = parser.parse_args()
    needed = {"--run": args.run}
    if not args.resume:
        needed = {"MODEL|SOLVER": args.source, "--data": args.data, "--run": args.run}
    missing = ", ".join(name for name, value in needed.items() if value is None)
    if missing:
        advice = "" if args.resume else "; to continue a run, --run and --resume"
        parser.error(f"the following arguments are required: {missing}{advice}")

    from tiny_imagenet.training import mpi, train  # after the arguments, since loading Caffe takes a moment

    argv, given = ["tools/train.py", *sys.argv[1:]], options.parsed(args, PROTOTXT)
    function = train.train_launched if mpi.launched() else train.train
    result = function(args.source, given, argv)
    if not result:  # not rank 0
        return
    if result["already"]:
        cli.note(f"{result['run']}: {result['longer']}")
    already = "already finished, " if result["already"] else ""
    print(
        f"{result['run']}: {already}best top-1 {100 * result['top1']:.2f} % at iteration {result['best']}, "
        f"{result['iterations']} iterations ({result['epochs']:.2f} epochs), {result['seconds']:.0f} s"
    )


if __name__ == "__main__":
    cli.run(main)
