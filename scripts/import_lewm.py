"""Turn a released LeWM folder into a run: python scripts/import_lewm.py SRC checkpoints/outputs/NAME

SRC holds weights.pt and config.json. No release was trained on PointMaze; the run is read by plan.py like any other.
"""

from pathlib import Path

from wmbench.commands import Arguments, door, plan_line


@door
def main() -> None:
    arguments = Arguments(description=__doc__)
    arguments.add_argument("src", type=Path, help="the released folder")
    arguments.add_argument("dst", type=Path, help="the run to write")
    arguments.add_argument(
        "--data", type=Path, help="episodes whose statistics normalise actions; by default uniform actions"
    )
    given = arguments.parse_args()
    # after --help, which does not wait for PyTorch
    from wmbench.importers.lewm import import_lewm

    run = import_lewm(given.src, given.dst, given.data)
    print(f"imported: {run} (not trained on PointMaze)\nnext: {plan_line(run)}")


if __name__ == "__main__":
    main()
