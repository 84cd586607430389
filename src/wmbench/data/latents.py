"""Tokens kept on disk: what a frozen encoder makes of every stored frame, computed once and read many times.

NAME.latents holds a row of bytes for each stored frame and, behind the rows, eight bytes for every CHUNK rows: 0 until they
are written, then a 1 above the rows' CRC-32. So a kill costs the chunk in progress. NAME.json says what the rows are. The
name ends in a hash of that: other data, weights, pixels or rounding make another file.

A row holds a frame's tokens as the first frame of a window and, where the encoder looks back, those of the frames after it
in the same window until one has all the predecessors it looks at.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from jaxtyping import Int, UInt8
from numpy import ndarray
from torch import Tensor

from wmbench.data.episodes import EpisodeSet
from wmbench.data.packing import TOLERANCE, Packing
from wmbench.data.windows import FrameNumbers, ahead, fits, send, upload
from wmbench.files import try_lock
from wmbench.machine import progress_bar
from wmbench.shapes import Obs

CHUNK = 64  # frames that are encoded, written and checked together
CHECKED_CHUNKS, CHECKED_FRAMES = 16, 4  # when a file is opened: read again, encoded again
DONE = 1 << 32  # above a chunk's CRC-32

Encode = Callable[[Obs], Tensor]  # observations (B T ..) as the episodes hold them -> tokens B T N D


class LatentFile:
    """The file of one data set, encoder and dtype; it need not exist yet.

    Args:
        folder: of all such files.
        encoder: everything about the encoder that its tokens depend on, and what names it to people.
        lookback: frames before its own that a frame's tokens depend on.
        frameskip: env steps from a frame to the next one of a window.

    Raises:
        ValueError: a file of this name that holds something else.
    """

    def __init__(
        self, folder: Path, episodes: EpisodeSet, encoder: Mapping[str, Any], packing: Packing, lookback: int, frameskip: int
    ):
        self.episodes, self.packing, self.lookback, self.frameskip = episodes, packing, lookback, frameskip
        self.numbers = FrameNumbers(episodes)
        self.key = {
            "data": episodes.hash,
            "frames": len(self.numbers),
            "chunk": CHUNK,
            "encoder": json.loads(json.dumps(encoder)),
            "tokens": [packing.num_tokens, packing.embed_dim],
            "dtype": packing.dtype,
            "lookback": lookback,
            "frameskip": frameskip if lookback else None,
        }
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()[:12]
        self.path = folder / f"{episodes.path.stem}_{encoder['name']}_{digest}.latents"
        self.row_bytes = (1 + lookback) * packing.num_bytes
        self.rows_bytes = len(self.numbers) * self.row_bytes
        self.num_chunks = -(-len(self.numbers) // CHUNK)
        self.remedy = f"delete it and run the command again: rm {self.path}"
        if self.is_begun:
            self._check_key()

    @property
    def is_begun(self) -> bool:
        return self.path.exists() and self.path.stat().st_size > 0

    @property
    def num_bytes(self) -> int:
        """Of the finished file."""
        return self.rows_bytes + 8 * self.num_chunks

    @property
    def missing_bytes(self) -> int:
        """That are still to be written."""
        missing = int((self.journal() == 0).sum()) if self.is_begun else self.num_chunks
        return min(missing * CHUNK * self.row_bytes, self.rows_bytes)

    def journal(self) -> Int[ndarray, " chunks"]:
        """DONE + CRC-32 of each chunk, 0 where it is not written."""
        return read_journal(self.path, self.num_chunks)

    def write(self, encode: Encode) -> None:
        """Fill what is missing: while a chunk is encoded, the next one is read and the one before it written.

        Raises:
            ValueError: another process is writing this file, or features that the dtype cannot hold.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self.path) as file:
            if not self.is_begun:
                about = {"key": self.key, "row_bytes": self.row_bytes, "data_path": str(self.episodes.path)}
                self.path.with_suffix(".json").write_text(json.dumps(about, indent=2) + "\n")
                file.truncate(self.num_bytes)  # zeros that take no space yet
            todo = np.flatnonzero(self.journal() == 0).tolist()
            done = len(self.numbers) - sum(len(self._chunk(k)) for k in todo)
            bar = progress_bar(total=len(self.numbers), initial=done, desc="encoding frames", unit=" frames")
            read = closing(ahead(self.observations, map(self._chunk, todo)))
            with bar, read as observations, ThreadPoolExecutor(1) as thread:
                written: Future[None] | None = None
                for k, obs in zip(todo, observations, strict=True):
                    rows = self.packing.pack(encode(obs)).cpu().numpy().reshape(-1, self.row_bytes)
                    if written is not None:
                        written.result()
                    written = thread.submit(self._write_chunk, file, k, rows)
                    bar.update(len(rows))
                if written is not None:
                    written.result()

    def check(self, encode: Encode) -> None:
        """Is it whole, and does it hold what the encoder makes of its frames? Looks at some chunks and frames of it.

        Raises:
            ValueError: it is incomplete, damaged, or the tokens are another encoder's.
        """
        journal = self.journal()
        if not journal.all():
            raise ValueError(f"{self.path} is not complete; run the command that writes it again to finish it")
        rng = np.random.default_rng()  # each time other places
        rows = self._map()
        for k in rng.permutation(self.num_chunks)[:CHECKED_CHUNKS].tolist():
            self._checked(rows, k, journal)
        number = np.sort(rng.permutation(len(self.numbers))[:CHECKED_FRAMES])
        found = self.packing.unpack(torch.from_numpy(rows[number]).unflatten(-1, (1 + self.lookback, -1)))
        expected = self.packing.unpack(self.packing.pack(encode(self.observations(number))).cpu())
        error = (found - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1).clamp_min(1e-12)
        if not (error < TOLERANCE[self.packing.dtype]).all():
            raise ValueError(
                f"{self.path} does not hold what this encoder makes of its frames: encoded again, frame "
                f"{number[error.argmax()]} is {error.max().item():.2g} of its size off, where rounding explains "
                f"{TOLERANCE[self.packing.dtype]}; {self.remedy}"
            )

    def open(self, device: torch.device) -> "Latents":
        """The tokens, in the device's memory where they fit."""
        rows, journal = self._map(), self.journal()
        if not fits(self.rows_bytes, device):
            return Latents(self, rows)

        def chunks() -> Iterator[ndarray]:
            for k in range(self.num_chunks):
                yield self._checked(rows, k, journal)

        return Latents(self, upload(chunks(), rows.shape, device, "features to the GPU"))

    def observations(self, number: Int[ndarray, " F"]) -> Obs:
        """Windows of 1 + lookback frames from the frames so numbered on; at an episode's end its last one repeats."""
        steps, episode = self.numbers.place(number)
        columns = [steps]
        for _ in range(self.lookback):
            after = columns[-1] + self.frameskip
            columns.append(np.where(after < self.episodes.ep_len[episode], after, columns[-1]))
        steps, episode = np.stack(columns, axis=1), np.stack([episode] * len(columns), axis=1)
        return Obs(
            visual=torch.from_numpy(self.episodes.frames(steps, episode)),
            proprio=torch.from_numpy(self.episodes.proprio[self.episodes.ep_offset[episode] + steps]),
        )

    def _chunk(self, k: int) -> Int[ndarray, " F"]:
        """Numbers of its frames."""
        return np.arange(k * CHUNK, min((k + 1) * CHUNK, len(self.numbers)))

    def _map(self) -> np.memmap:
        return np.memmap(self.path, np.uint8, "r", shape=(len(self.numbers), self.row_bytes))

    def _write_chunk(self, file: BinaryIO, k: int, rows: UInt8[ndarray, "F bytes"]) -> None:
        """The rows first and for good, then the entry that vouches for them."""
        os.pwrite(file.fileno(), rows.tobytes(), k * CHUNK * self.row_bytes)
        os.fsync(file.fileno())
        os.pwrite(file.fileno(), np.int64(DONE + zlib.crc32(rows.data)).tobytes(), self.rows_bytes + 8 * k)

    def _checked(self, rows: ndarray, k: int, journal: Int[ndarray, " chunks"]) -> UInt8[ndarray, "F bytes"]:
        """The rows of a chunk."""
        number = self._chunk(k)
        chunk = rows[number]
        if DONE + zlib.crc32(chunk.data) != journal[k]:
            raise ValueError(
                f"{self.path} is damaged: frames {number[0]} to {number[-1]} have another checksum than when they were "
                f"written; {self.remedy}"
            )
        return chunk

    def _check_key(self) -> None:
        try:
            key = json.loads(self.path.with_suffix(".json").read_text())["key"]
        except (OSError, ValueError, KeyError):
            json_path = self.path.with_suffix(".json")
            raise ValueError(
                f"{json_path}, which says what {self.path} holds, is missing or damaged; {self.remedy}"
            ) from None
        if key != self.key:
            differs = ", ".join(name for name in self.key if key.get(name) != self.key[name])
            raise ValueError(f"{self.path} holds features of another {differs}; {self.remedy}")
        if (found := self.path.stat().st_size) != self.num_bytes:
            raise ValueError(f"{self.path} has {found:,} bytes instead of {self.num_bytes:,}: truncated; {self.remedy}")


class Latents:
    """Tokens in place of frames, as windows ask for them.

    Args:
        rows: mapped from the file, or on a GPU.
    """

    def __init__(self, file: LatentFile, rows: ndarray | Tensor):
        self.file, self.rows = file, rows

    def visual(self, steps: Int[ndarray, "B T"], episode: Int[ndarray, "B T"], device: torch.device) -> Tensor:
        """Tokens (B T N D) float32; rows are uint8 until they are on the device."""
        slots = 1 + self.file.lookback
        frame = np.arange(steps.shape[1])
        begun = np.maximum(frame - self.file.lookback, 0)  # the frame whose row holds those of `frame`
        number = self.file.numbers.of(steps[:, begun], episode[:, begun]) * slots + (frame - begun)
        if isinstance(self.rows, Tensor):
            stored = self.rows.view(-1, self.file.packing.num_bytes)[send(torch.from_numpy(number), self.rows.device)]
            return self.file.packing.unpack(stored.to(device))
        stored = self.rows.reshape(-1, self.file.packing.num_bytes)[number]
        return self.file.packing.unpack(send(torch.from_numpy(stored), device))


def read_journal(path: Path, num_chunks: int) -> Int[ndarray, " chunks"]:
    """The entries at the end of a file, zeros where it has no end yet."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 8 * num_chunks))
        entries = np.frombuffer(file.read(), "<i8")
    return entries if len(entries) == num_chunks else np.zeros(num_chunks, np.int64)


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """The file, open for writing by this process alone; made where it is missing."""
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
        if not try_lock(file):
            raise ValueError(f"another process is writing {path}; wait for it, or use cache.enabled=false meanwhile")
        yield file
