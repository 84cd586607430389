"""Tokens kept on disk: what a frozen encoder makes of every stored frame, computed once and read many times.

NAME.latents holds a row of bytes for each stored frame and, behind the rows, eight bytes for every CHUNK rows: 0 until they
are written, then a 1 above the rows' CRC-32. So a kill costs the chunk in progress, and a chunk that is damaged later is
encoded again, with a note. NAME.json says what the rows are. The name ends in a hash of that: other data, weights, pixels or
rounding make another file.

A row holds the tokens of its frame; an encoder that looks back also reads the frames `frameskip` steps earlier for them.
"""

import hashlib
import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from jaxtyping import Int, UInt8
from numpy import ndarray
from torch import Tensor

from wmbench.data.episodes import EpisodeSet
from wmbench.data.packing import TOLERANCE, Packing
from wmbench.data.token_facts import FORMAT, read_about, read_journal
from wmbench.data.windows import CPU, FrameNumbers, Source, StoredFrames, compute_ahead, fits, observe, send, upload
from wmbench.files import regular, try_lock, write_text, writing
from wmbench.machine import progress_bar
from wmbench.processes.group import mine
from wmbench.processes.meeting import by_first, meet
from wmbench.shapes import Obs

CHUNK = 64  # frames that are encoded, written and checked together
CHECKED_CHUNKS, CHECKED_FRAMES = 16, 4  # when a file is opened: read again, encoded again
DONE = 1 << 32  # above a chunk's CRC-32
POLL_S = 0.5  # between two looks at a file that another process writes

Encode = Callable[[Obs], Tensor]  # observations (B T ..) as the episodes hold them -> tokens B T N D


class TokenFile:
    """The file of tokens of one data set, encoder and dtype; it need not exist yet.

    Args:
        folder: of all such files.
        encoder: everything that its own tokens depend on apart from the frames, and its class as `name`.
        source: where its weights come from, for people.
        lookback: frames before its own that a frame's tokens depend on.
        frameskip: env steps from a frame to the next one of a window.

    Raises:
        ValueError: a file of this name that holds something else.
    """

    def __init__(
        self,
        folder: Path,
        episodes: EpisodeSet,
        encoder: Mapping[str, Any],
        packing: Packing,
        lookback: int,
        frameskip: int,
        source: str = "",
    ):
        self.episodes, self.packing, self.lookback, self.frameskip = episodes, packing, lookback, frameskip
        self.source = source
        self.numbers = FrameNumbers(episodes)
        self.key = {
            "format": FORMAT,
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
        self.row_bytes = packing.num_bytes
        self.rows_bytes = len(self.numbers) * self.row_bytes
        self.num_chunks = -(-len(self.numbers) // CHUNK)
        self.remedy = f"delete it and run the command again: rm {self.path}"
        if regular(self.path).exists() and (found := self.path.stat().st_size):
            self._check_key()
            if found != self.num_bytes:
                print(
                    f"note: {self.path} has {found:,} bytes instead of {self.num_bytes:,}: truncated, so it is made anew",
                    file=sys.stderr,
                )

    @property
    def is_begun(self) -> bool:
        """Whether some of its rows may be there; of a file that was cut off, nothing is."""
        return self.path.exists() and self.path.stat().st_size == self.num_bytes

    @property
    def num_bytes(self) -> int:
        """Size of the finished file."""
        return self.rows_bytes + 8 * self.num_chunks

    @property
    def about_path(self) -> Path:
        """The JSON file that says what the rows are."""
        return self.path.with_suffix(".json")

    @property
    def num_done(self) -> int:
        """Frames whose tokens are written."""
        return sum(len(self._chunk(k)) for k in np.flatnonzero(self.journal()).tolist()) if self.is_begun else 0

    @property
    def missing_bytes(self) -> int:
        """Bytes still to be written."""
        missing = int((self.journal() == 0).sum()) if self.is_begun else self.num_chunks
        return min(missing * CHUNK * self.row_bytes, self.rows_bytes)

    def journal(self) -> Int[ndarray, " chunks"]:
        """DONE + CRC-32 of each chunk, 0 where it is not written."""
        return read_journal(self.path, self.num_chunks)

    def write(self, encode: Encode) -> None:
        """Fill what is missing: while a chunk is encoded, the next one is read and the one before it written.

        The processes of a command share what is missing. Waits while another command writes, then writes what that has left.

        Raises:
            ValueError: tokens that the dtype cannot hold.
        """
        with ExitStack() as held:
            todo = by_first(lambda: self._begin(held))[mine()]
            done, number = self.num_done, sum(len(self._chunk(k)) for k in todo)
            bar = progress_bar(total=done + number, initial=done, desc="encoding frames", unit=" frames")
            read = closing(compute_ahead(self.observations, map(self._chunk, todo)))
            with self.path.open("r+b") as file, bar, read as observations, ThreadPoolExecutor(1) as thread:
                written: Future[None] | None = None
                for k, obs in zip(todo, observations, strict=True):
                    rows = self.packing.pack(encode(obs)).cpu().numpy().reshape(-1, self.row_bytes)
                    if written is not None:
                        written.result()
                    written = thread.submit(self._write_chunk, file, k, rows)
                    bar.update(len(rows))
                if written is not None:
                    written.result()
            meet()  # what holds the file for all is let go when all have written

    def _begin(self, held: ExitStack) -> list[int]:
        """Hold the file, made if it is missing, and list the chunks that it lacks."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = held.enter_context(self._locked())
        if not self.is_begun:
            about = {"key": self.key, "row_bytes": self.row_bytes, "data_path": str(self.episodes.path)}
            write_text(self.about_path, json.dumps(about | {"source": self.source}, indent=2) + "\n")
            file.truncate(0)
            file.truncate(self.num_bytes)  # zeros that take no space yet
        return np.flatnonzero(self.journal() == 0).tolist()

    def check(self, encode: Encode) -> None:
        """Check on some frames that the file holds what the encoder makes of them; mends some chunks, if they are damaged.

        Raises:
            ValueError: it is incomplete, or the tokens are another encoder's.
        """
        if not self.is_begun or not self.journal().all():
            raise ValueError(f"{self.path} is not complete; run the command that writes it again to finish it")
        rng = np.random.default_rng()  # other places each time
        rows = self._map()
        for k in rng.permutation(self.num_chunks)[:CHECKED_CHUNKS].tolist():
            self.mended(rows, k, encode)
        number = np.sort(rng.permutation(len(self.numbers))[:CHECKED_FRAMES])
        found = self.packing.unpack(torch.from_numpy(rows[number])[:, None])
        expected = self.packing.unpack(self.packing.pack(encode(self.observations(number))).cpu())
        error = (found - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1).clamp_min(1e-12)
        if not (error < TOLERANCE[self.packing.dtype]).all():
            raise ValueError(
                f"{self.path} does not hold what this encoder makes of its frames: encoded again, frame "
                f"{number[error.argmax()]} is {error.max().item():.2g} of its size off, where rounding explains "
                f"{TOLERANCE[self.packing.dtype]}; {self.remedy}"
            )

    def open(self, device: torch.device, encode: Encode) -> "KeptTokens":
        """Open the tokens, in the device's memory where they fit."""
        rows = self._map()
        if not fits(self.rows_bytes, device):
            return KeptTokens(self, rows, encode)
        chunks = (self.mended(rows, k, encode) for k in range(self.num_chunks))
        return KeptTokens(self, upload(chunks, rows.shape, device, "tokens to the GPU"), encode)

    def mended(self, rows: ndarray, k: int, encode: Encode) -> UInt8[ndarray, "F bytes"]:
        """Read the rows of a chunk, encoded again where their checksum is not the one that they were written with."""
        number = self._chunk(k)
        if not self._is_whole(rows, k):
            print(f"note: {self.path}: frames {number[0]} to {number[-1]} are damaged and encoded again", file=sys.stderr)
            with self._locked() as file:
                if not self._is_whole(rows, k):  # another process may have mended it just now
                    packed = self.packing.pack(encode(self.observations(number))).cpu().numpy()
                    self._write_chunk(file, k, packed.reshape(-1, self.row_bytes))
        return rows[number]

    def _is_whole(self, rows: ndarray, k: int) -> bool:
        with self.path.open("rb") as file:
            entry = os.pread(file.fileno(), 8, self.rows_bytes + 8 * k)
        return int.from_bytes(entry, "little") == DONE + zlib.crc32(rows[self._chunk(k)].data)

    def observations(self, number: Int[ndarray, " F"]) -> Obs:
        """Observations of single frames by number, each with the `lookback` frames before it."""
        steps, episode = (place[:, None] for place in self.numbers.place(number))
        return observe(StoredFrames(self.episodes), self.episodes, steps, episode, self.lookback, self.frameskip, CPU)

    def _chunk(self, k: int) -> Int[ndarray, " F"]:
        """Numbers of the frames of chunk k."""
        return np.arange(k * CHUNK, min((k + 1) * CHUNK, len(self.numbers)))

    def _map(self) -> np.memmap:
        return np.memmap(self.path, np.uint8, "r", shape=(len(self.numbers), self.row_bytes))

    def _write_chunk(self, file: BinaryIO, k: int, rows: UInt8[ndarray, "F bytes"]) -> None:
        """Write the rows to the disk first, then the entry that says they are whole."""
        with writing(self.path, "make room, or cache.dir=FOLDER moves it; what is encoded is kept"):
            os.pwrite(file.fileno(), rows.tobytes(), k * CHUNK * self.row_bytes)
            os.fsync(file.fileno())
            os.pwrite(file.fileno(), np.int64(DONE + zlib.crc32(rows.data)).tobytes(), self.rows_bytes + 8 * k)

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        """Open the file, made if it is missing, for writing by this process only; waits while another one writes it."""
        while True:
            with os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
                if not try_lock(file):
                    self._wait(file)
                if self.path.exists() and os.path.samestat(os.fstat(file.fileno()), self.path.stat()):  # not deleted since
                    yield file
                    return

    def _wait(self, file: BinaryIO) -> None:
        """Wait until the process that writes the file has finished or died, and show its progress."""
        print(f"another process is encoding these frames into {self.path}; waiting for it", flush=True)
        with progress_bar(total=len(self.numbers), desc="waiting", unit=" frames") as bar:
            while not try_lock(file):
                bar.update(self.num_done - bar.n)
                time.sleep(POLL_S)

    def _check_key(self) -> None:
        key = read_about(self.path).get("key")
        if key is None:
            raise ValueError(f"{self.about_path}, which says what {self.path} holds, is missing or damaged; {self.remedy}")
        if key != self.key:
            differs = ", ".join(name for name in self.key if key.get(name) != self.key[name])
            raise ValueError(f"{self.path} holds tokens of another {differs}; {self.remedy}")


class KeptTokens:
    """Tokens from the file in place of frames, as windows ask for them.

    Args:
        rows: mapped from the file, whose chunks are checked when they are first read, or on a GPU.
        encode: for a chunk that is damaged.
    """

    encoded = True

    def __init__(self, file: TokenFile, rows: ndarray | Tensor, encode: Encode):
        self.file, self.rows, self.encode = file, rows, encode
        self.checked: set[int] = set()

    def visual(self, steps: Int[ndarray, "B T"], episode: Int[ndarray, "B T"], device: torch.device) -> Tensor:
        """Tokens (B T N D) float32; rows are uint8 until they are on the device."""
        number = self.file.numbers.of(steps, episode)
        if isinstance(self.rows, Tensor):
            stored = self.rows[send(torch.from_numpy(number), self.rows.device)]
            return self.file.packing.unpack(stored.to(device))
        for k in set((number // CHUNK).flat) - self.checked:
            self.file.mended(self.rows, int(k), self.encode)
            self.checked.add(k)
        return self.file.packing.unpack(send(torch.from_numpy(np.asarray(self.rows[number])), device))


class FreshTokens:
    """Tokens that are computed each time and rounded as in the file, so that a run's numbers are the same without it.

    Args:
        frames: source of the frames to encode.
    """

    encoded = True

    def __init__(self, file: TokenFile, frames: Source, encode: Encode):
        self.file, self.frames, self.encode = file, frames, encode

    def visual(self, steps: Int[ndarray, "B T"], episode: Int[ndarray, "B T"], device: torch.device) -> Tensor:
        file = self.file
        obs = observe(self.frames, file.episodes, steps, episode, file.lookback, file.frameskip, device)
        return file.packing.unpack(file.packing.pack(self.encode(obs)))
