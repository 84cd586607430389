"""Turn a released LeWM folder into a run: python scripts/import_lewm.py SRC checkpoints/outputs/NAME

SRC holds weights.pt and config.json. No release was trained on PointMaze; the run is read by plan.py like any other.
"""

import argparse
from pathlib import Path

from wmbench.commands import fail, plan_line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("src", type=Path, help="the released folder")
    parser.add_argument("dst", type=Path, help="the run to write")
    parser.add_argument("--data", type=Path, help="episodes whose statistics normalise actions; by default uniform actions")
    arguments = parser.parse_args()
    from wmbench.importers.lewm import import_lewm

    try:
        run = import_lewm(arguments.src, arguments.dst, arguments.data)
    except (ValueError, OSError) as error:
        fail(str(error))
    else:
        print(f"imported: {run} (not trained on PointMaze)\nnext: {plan_line(run)}")


if __name__ == "__main__":
    main()
