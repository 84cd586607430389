"""Recompute what an original implementation recorded: python scripts/verify_golden.py FILE

    python scripts/verify_golden.py world_model_tiny.pt
    python scripts/verify_golden.py cem_trace_tiny.pt --world-model world_model_tiny.pt
    python scripts/verify_golden.py lewm_tiny.pt
    python scripts/verify_golden.py dino_wm_checkpoint/expected.pt --checkpoint dino_wm_checkpoint/outputs/point_maze_tiny

Rebuilds the recorded model, with sizes from the file itself, and prints ||ours - recorded|| / ||recorded|| of every quantity
(||ours|| where the record is zero). Exit status 1 if one is above its limit, which is 0.00001 (CEM's mean and std: 0.0001).
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from wmbench.commands import fail

Line = tuple[str, float, float, str]  # quantity, relative error, limit, what is wrong apart from the number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="what was recorded")
    parser.add_argument(
        "--world-model", type=Path, metavar="FILE", help="the world model that a CEM trace was recorded with"
    )
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FOLDER", help="the released folder that outputs were recorded of"
    )
    arguments = parser.parse_args()
    passed = []
    try:
        for name, error, limit, problem in lines(arguments.file, arguments.world_model, arguments.checkpoint):
            passed.append(error <= limit)
            verdict = "ok" if passed[-1] else f"FAILED, limit {limit:f}".rstrip("0") + problem
            print(f"{name:<40}{error:<10.1e}{verdict}")
    except (ValueError, OSError) as error:
        fail(str(error))
    except (RuntimeError, KeyError, TypeError, AttributeError, IndexError) as error:
        fail(f"{arguments.file} is damaged: its parts do not fit each other ({str(error).partition(chr(10))[0]})")
    print(f"{sum(passed)} of {len(passed)} within their limits")
    raise SystemExit(not all(passed))


def lines(file: Path, world_model: Path | None, checkpoint: Path | None) -> Iterator[Line]:
    """Compare every quantity of a file, one line for each; the contents tell the file's kind."""
    from wmbench.importers import golden, golden_lewm

    record = golden.read_record(file)
    if {"predict", "proprio_embedding"} <= record.keys():
        from wmbench.importers.checkpoint import verify_checkpoint

        if checkpoint is None:
            raise ValueError(f"{file} holds outputs of a checkpoint; add --checkpoint FOLDER, the released folder itself")
        yield from ((name, error, limit, "") for name, error, limit in verify_checkpoint(checkpoint, file))
        return
    if "noise" in record:
        if world_model is None:
            raise ValueError(f"{file} is a trace of CEM; add --world-model FILE, the world model that it was recorded with")
        quantities = golden.recompute_cem(record, golden.read_record(world_model))
    elif "encoder_patch_linear" in record:
        quantities = golden.recompute(record)
    elif "weights" in record:
        quantities = golden_lewm.recompute_lewm(record)
    else:
        raise ValueError(f"{file} is no recorded world model, CEM trace, LeWM or checkpoint; it holds {', '.join(record)}")
    for name, ours, recorded, limit in quantities:
        differs = f": {tuple(recorded.shape)} recorded, {tuple(ours.shape)} computed" if ours.shape != recorded.shape else ""
        yield name, golden.relative_error(ours, recorded), limit, differs


if __name__ == "__main__":
    main()
