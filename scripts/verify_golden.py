"""Recompute what an original implementation recorded: python scripts/verify_golden.py FILE

    python scripts/verify_golden.py world_model_tiny.pt
    python scripts/verify_golden.py cem_trace_tiny.pt --world-model world_model_tiny.pt
    python scripts/verify_golden.py lewm_tiny.pt
    python scripts/verify_golden.py dino_wm_checkpoint/expected.pt --checkpoint dino_wm_checkpoint/outputs/point_maze_tiny

Rebuilds the recorded model, with sizes from the file itself, and prints ||ours - recorded|| / ||recorded|| of every quantity
(||ours|| where the record is zero). Exit status 1 if one is above its limit, which is 0.00001 (CEM's mean and std: 0.0001).
"""

from pathlib import Path

from wmbench.commands import Arguments, door


@door
def main() -> None:
    arguments = Arguments(description=__doc__)
    arguments.add_argument("file", type=Path, help="what was recorded")
    arguments.add_argument(
        "--world-model", type=Path, metavar="FILE", help="the world model that a CEM trace was recorded with"
    )
    arguments.add_argument(
        "--checkpoint", type=Path, metavar="FOLDER", help="the released folder that outputs were recorded of"
    )
    given = arguments.parse_args()
    # after --help, which does not wait for PyTorch
    from wmbench.importers.recordings import compare

    passed = []
    try:
        for name, error, limit, problem in compare(given.file, given.world_model, given.checkpoint):
            passed.append(error <= limit)
            verdict = "ok" if passed[-1] else f"FAILED, limit {limit:f}".rstrip("0") + problem
            print(f"{name:<40}{error:<10.1e}{verdict}")
    except (RuntimeError, KeyError, TypeError, AttributeError, IndexError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{given.file} is damaged: its parts do not fit each other ({reason})") from None
    print(f"{sum(passed)} of {len(passed)} within their limits")
    raise SystemExit(not all(passed))


if __name__ == "__main__":
    main()
