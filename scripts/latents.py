"""List the tokens kept for training, and delete some: python scripts/latents.py

--prune deletes the files that are not complete, or those named: python scripts/latents.py --prune maze_DINOv2_0123456789ab
A file that is being written stays. Training computes missing tokens again.
"""

import argparse
import time
from pathlib import Path

import pandas as pd

from wmbench.commands import fail, told
from wmbench.data.token_file import read_about, read_journal
from wmbench.files import try_lock
from wmbench.machine import duration, size

COLUMNS = ("name", "encoder", "data", "tokens x width", "dtype", "frames", "size", "written", "age")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=Path("data/latents"), help="cache.dir of train.py")
    parser.add_argument("--prune", nargs="*", metavar="NAME", help="delete these, or without a name what is incomplete")
    arguments = parser.parse_args()
    paths = {path.stem: path for path in sorted(arguments.dir.glob("*.latents"))}
    if arguments.prune is None:
        print_table(paths)
        return
    if unknown := [name for name in arguments.prune if name not in paths]:
        fail(f"no {', '.join(unknown)} in {arguments.dir}; there: {', '.join(paths) or 'nothing'}")
    names = arguments.prune or [name for name, path in paths.items() if written_fraction(path) < 1]
    freed = sum(prune(paths[name]) for name in names)
    print(f"{size(freed)} freed")


def print_table(paths: dict[str, Path]) -> None:
    if not paths:
        print("no features are kept here; train.py keeps those of frozen networks (cache.enabled)")
        return
    print(pd.DataFrame([row(path) for path in paths.values()], columns=COLUMNS).fillna("").to_string(index=False))
    print(f"{size(sum(on_disk(path) for path in paths.values()))} in all")


def row(path: Path) -> dict[str, str]:
    part, about, age = written_fraction(path), read_about(path), time.time() - path.stat().st_mtime
    known = {"name": path.stem, "size": size(on_disk(path)), "written": f"{100 * part:.0f}%", "age": duration(age)}
    if is_locked(path):
        known["written"] += ", going on"
    if not about:
        return known | {"encoder": "its JSON is missing or damaged"}
    key = about["key"]
    tokens = " x ".join(str(number) for number in key["tokens"])
    return known | {
        "encoder": about.get("source", "of an earlier version, not read"),
        "data": about["data_path"],
        "tokens x width": tokens,
        "dtype": key["dtype"],
        "frames": f"{key['frames']:,}",
    }


def prune(path: Path) -> int:
    """Delete a file and its JSON; returns the bytes freed, 0 for a file that is being written."""
    if is_locked(path):
        print(f"{path.stem} is being written and stays")
        return 0
    freed = on_disk(path)
    path.unlink()
    path.with_suffix(".json").unlink(missing_ok=True)
    print(f"{path.stem} deleted: {size(freed)}")
    return freed


def written_fraction(path: Path) -> float:
    """Fraction of the file that is written."""
    if not (about := read_about(path)):
        return 0.0
    num_chunks = -(-about["key"]["frames"] // about["key"]["chunk"])
    return float((read_journal(path, num_chunks) != 0).mean())


def on_disk(path: Path) -> int:
    """Bytes that the file takes on the disk; what is not written yet takes none."""
    return 512 * path.stat().st_blocks


def is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        return not try_lock(file)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        fail(told(error))
