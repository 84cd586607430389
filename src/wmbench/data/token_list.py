"""The files of kept tokens as a list for people: what each holds, and deleting some."""

import time
from pathlib import Path

from wmbench.data.token_facts import read_about, read_journal
from wmbench.files import regular, try_lock
from wmbench.machine import duration, size


def describe(path: Path) -> dict[str, str]:
    """What a file holds, of what data and how much of it is written, in words."""
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


def prune(path: Path) -> int | None:
    """Delete a file and its JSON; returns the bytes freed, None for a file that is being written."""
    if is_locked(path):
        return None
    freed = on_disk(path)
    path.unlink()
    path.with_suffix(".json").unlink(missing_ok=True)
    return freed


def written_fraction(path: Path) -> float:
    """Fraction of the file that is written."""
    if not (about := read_about(path)):
        return 0.0
    num_chunks = -(-about["key"]["frames"] // about["key"]["chunk"])
    if 8 * num_chunks > path.stat().st_size:
        return 0.0
    return float((read_journal(path, num_chunks) != 0).mean())


def on_disk(path: Path) -> int:
    """Bytes that the file takes on the disk; what is not written yet takes none."""
    return 512 * path.stat().st_blocks


def is_locked(path: Path) -> bool:
    with regular(path).open("rb") as file:
        return not try_lock(file)
