"""The files that hold one set of tokens: NAME.latents or, where that would be too large, shards in one folder or several.

A shard holds a row of bytes for each of its frames and, behind the rows, eight bytes for every chunk of rows: 0 until they
are written, then a 1 above the rows' CRC-32. So a kill costs the chunk in progress, and a chunk that is damaged later is
noticed. The first shard is NAME.latents, with NAME.json, which says what the rows are; the others have the numbers of their
frames in their names, such as NAME.6400-12799.latents.
"""

import os
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from numpy import ndarray

from wmbench.files import regular, writing
from wmbench.machine import disk_number, free_disk

DONE = 1 << 32  # above a chunk's CRC-32


@dataclass(frozen=True)
class Shard:
    """The file of a range of frames, which need not exist yet. Its chunks are numbered as those of all shards are."""

    path: Path
    frames: range
    row_bytes: int
    chunk: int  # rows of one, at most

    @property
    def rows_bytes(self) -> int:
        """Bytes of all rows."""
        return len(self.frames) * self.row_bytes

    @property
    def num_chunks(self) -> int:
        """Number of chunks."""
        return -(-len(self.frames) // self.chunk)

    @property
    def num_bytes(self) -> int:
        """Size of the finished file."""
        return self.rows_bytes + 8 * self.num_chunks

    @property
    def is_begun(self) -> bool:
        """Whether some of its rows may be there; of a file that was cut off, nothing is."""
        return regular(self.path).exists() and self.path.stat().st_size == self.num_bytes

    @property
    def missing_bytes(self) -> int:
        """Bytes still to be written."""
        return min(int((self.journal() == 0).sum()) * self.chunk * self.row_bytes, self.rows_bytes)

    def journal(self) -> Int[ndarray, " chunks"]:
        """DONE + CRC-32 of each chunk, 0 where it is not written."""
        if not self.is_begun:
            return np.zeros(self.num_chunks, np.int64)
        return np.fromfile(self.path, "<i8", self.num_chunks, offset=self.rows_bytes)

    def tell_if_cut_off(self) -> None:
        """Note that a file of another size will be made anew."""
        if self.path.exists() and not self.is_begun and (there := self.path.stat().st_size):
            told = f"{self.path} has {there:,} bytes instead of {self.num_bytes:,}: truncated, so it is made anew"
            print(f"note: {told}", file=sys.stderr)

    def begin(self) -> None:
        """Make the file, of zeros that take no space yet."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:  # not replaced: another process may wait for its lock
            file.truncate(0)
            file.truncate(self.num_bytes)

    def write_chunk(self, k: int, rows: UInt8[ndarray, "F bytes"]) -> None:
        """Write the rows to the disk first, then the entry that says they are whole."""
        remedy = "make room, or cache.dir=FOLDER moves it; what is encoded is kept"
        with writing(self.path, remedy), self.path.open("r+b") as file:
            os.pwrite(file.fileno(), rows.tobytes(), self._row(k) * self.row_bytes)
            os.fsync(file.fileno())
            os.pwrite(file.fileno(), np.int64(DONE + zlib.crc32(rows.data)).tobytes(), self._entry(k))

    def is_whole(self, k: int, rows: UInt8[ndarray, "F bytes"]) -> bool:
        """Whether these rows of a chunk are those that were written."""
        with self.path.open("rb") as file:
            entry = os.pread(file.fileno(), 8, self._entry(k))
        return int.from_bytes(entry, "little") == DONE + zlib.crc32(rows.data)

    def map(self) -> np.memmap:
        """Its rows as they are in the file, of which only those that are used are read."""
        return np.memmap(self.path, np.uint8, "r", shape=(len(self.frames), self.row_bytes))

    def _row(self, k: int) -> int:
        return k * self.chunk - self.frames.start

    def _entry(self, k: int) -> int:
        return self.rows_bytes + 8 * (self._row(k) // self.chunk)


def split(path: Path, num_frames: int, shard_frames: int, row_bytes: int, chunk: int) -> list[Shard]:
    """Shards of so many frames each, whose first one is the path, all in its folder."""
    parts = [range(start, min(start + shard_frames, num_frames)) for start in range(0, num_frames, shard_frames)]
    names = [path.name, *(f"{path.stem}.{part.start}-{part.stop - 1}{path.suffix}" for part in parts[1:])]
    return [Shard(path.with_name(name), part, row_bytes, chunk) for name, part in zip(names, parts, strict=True)]


def found(shards: list[Shard], folders: Sequence[Path]) -> list[Shard]:
    """Shards where they are, in the first folder that has them; those that no folder has stay as they are."""
    places = [[shard.path, *(folder / shard.path.name for folder in folders)] for shard in shards]
    return [
        replace(shard, path=next(filter(Path.exists, possible), shard.path))
        for shard, possible in zip(shards, places, strict=True)
    ]


def placed(shards: list[Shard], folders: Sequence[Path]) -> tuple[list[Shard], bool]:
    """Give each shard that is missing the first folder whose disk has room for it; also whether all have room.

    Room is what is free without what the shards before it and those that are begun will still take.
    """
    left, has_room, dealt = room(folders), True, []
    for shard in sorted(shards, key=lambda shard: not shard.path.exists()):  # those that are there first
        folder = shard.path.parent
        if not shard.path.exists():
            folder = next((one for one in folders if left[disk_number(one)] >= shard.num_bytes), folder)
        left[disk_number(folder)] -= shard.missing_bytes
        has_room &= left[disk_number(folder)] >= 0 or not shard.missing_bytes
        dealt.append(replace(shard, path=folder / shard.path.name))
    return sorted(dealt, key=lambda shard: shard.frames.start), has_room


def room(folders: Sequence[Path]) -> dict[int, int]:
    """Bytes free on each disk of the folders, by its number."""
    return {disk_number(folder): free_disk(folder / "a file") for folder in folders}


class Rows:
    """The rows of all shards by the numbers of their frames; a shard is mapped when one of its rows is asked for."""

    def __init__(self, shards: list[Shard]):
        self.shards = shards
        self.shape = (shards[-1].frames.stop, shards[0].row_bytes)
        self.maps: dict[int, np.memmap] = {}

    def __getitem__(self, number: Int[ndarray, "*B"]) -> UInt8[ndarray, "*B bytes"]:
        which = number // len(self.shards[0].frames)
        rows = np.empty((*number.shape, self.shape[1]), np.uint8)
        for shard in np.unique(which).tolist():
            if shard not in self.maps:
                self.maps[shard] = self.shards[shard].map()
            here = which == shard
            rows[here] = self.maps[shard][number[here] - self.shards[shard].frames.start]
        return rows
