#!/usr/bin/env python3
"""Train a model of the paper, or a net of your own, on a converted data folder.

Started by mpirun or srun (--mpi=pmix), perhaps on many machines, all processes train one net together; that needs Open
MPI and mpi4py: tools/setup.sh --cluster.
"""

import argparse
import sys
from pathlib import Path

import _venv  # noqa: F401
from tiny_imagenet import cli
from tiny_imagenet.models import zoo
from tiny_imagenet.training import launch

PROTOTXT = Path(__file__).resolve().parent.parent / "prototxt"


class Parser(cli.Parser):
    """Of several ranks with the same mistake one says so."""

    def error(self, message):
        launch.let_rank_0_speak(launch.launched())
        super().error(message)


def main():
    parser = Parser(
        __doc__,
        "tools/train.py model1 --data data --run runs/model1 --epochs 10\n"
        "  tools/train.py model8 --data data --run runs/model8 --gpu 0,1,2,3\n"
        "  mpirun -n 4 --hostfile hosts .venv/bin/python tools/train.py model8 --data data --run runs/model8",
    )
    parser.add_argument(
        "source",
        metavar="MODEL|SOLVER",
        nargs="?",
        help=f"{zoo.NAMES}, a solver prototxt or its folder; --resume needs none",
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="what tools/convert.py wrote; --resume needs none")
    parser.add_argument(
        "--run", type=Path, required=True, metavar="DIR", help="the run folder to make, or to go on with"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run where it ended; begin it if there is none yet"
    )
    parser.add_argument("--seed", type=cli.count, metavar="S", help="of weights, order, crops and dropout (1)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=cli.positive_int, metavar="N", help="how many times through the data")
    length.add_argument("--max-iter", type=cli.positive_int, metavar="N", help="how many iterations")
    parser.add_argument("--batch", type=cli.positive_int, metavar="N", help="images an iteration (the file's)")
    parser.add_argument(
        "--base-lr", type=cli.positive_float, metavar="RATE", help="learning rate to begin with (the file's)"
    )
    row = "(the model's row)"
    parser.add_argument("--patience", type=cli.count, metavar="N", help=f"epochs without a better top-1 {row}; 0: any")
    parser.add_argument("--lr-factor", type=share, metavar="F", help=f"what the rate is then multiplied by {row}")
    parser.add_argument(
        "--lr-drops",
        type=cli.positive_int,
        metavar="N",
        help=f"at so many such times it ends {row}; more with --resume",
    )
    parser.add_argument(
        "--init", type=Path, metavar="WEIGHTS", help="a caffemodel: layers of the same name take its weights; no stages"
    )
    parser.add_argument("--no-stages", action="store_true", help="do not train the nets in stages/ before this one")
    cli.add_gpus(parser, "train on these GPUs, which share each batch (those of a run that goes on, else the CPU)")
    parser.add_argument("--keep", type=cli.positive_int, default=2, metavar="N", help="newest checkpoints to keep (2)")
    parser.add_argument(
        "--save-every", type=cli.positive_float, default=15, metavar="MINUTES", help="also within an epoch (15)"
    )
    parser.add_argument(
        "--answer-within",
        type=cli.positive_float,
        default=60,
        metavar="SECONDS",
        help="several machines: one that gives no sign of life for so long has gone (60)",
    )
    parser.add_argument("--quiet", action="store_true", help="say nothing on the way; train.log has it all")
    args = parser.parse_args()
    if not args.resume and (args.source is None or args.data is None):
        parser.error("a MODEL or SOLVER and --data are needed, or --resume to go on with a run")

    from tiny_imagenet.training.train import Options, train  # after the arguments: Caffe takes a moment to load

    given = {name: value for name, value in vars(args).items() if value is not None}
    options = {name: value for name, value in given.items() if name not in ("source", "data", "no_stages")}
    options |= {"data": args.data, "staged": not args.no_stages, "prototxt": PROTOTXT}
    result = train(args.source, Options(**options), ["tools/train.py", *sys.argv[1:]], launch=launch.launched())
    if not result:  # this is one of several ranks, and rank 0 has the result
        return
    already = "already finished, " if result["already"] else ""
    if already:
        cli.note(f"{result['run']}: {result['longer']}")
    print(
        f"{result['run']}: {already}best top-1 {100 * result['top1']:.2f} % at iteration {result['best']}, "
        f"{result['iterations']} iterations ({result['epochs']:.2f} epochs), {result['seconds']:.0f} s"
    )


def share(text):
    value = cli.positive_float(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and below 1")
    return value


if __name__ == "__main__":
    cli.run(main)
