"""Tokens kept on disk: what a frozen encoder makes of every stored frame, computed once and read many times.

NAME.latents, or the shards that it is the first of (token_shards.py), hold a row of bytes for each stored frame. What is
missing or damaged is encoded again. NAME.json says what the rows are. The name ends in a hash of that: other data, weights,
pixels or rounding make another file; the size of shards and the folders that they are in do not.

A row holds the tokens of its frame; an encoder that looks back also reads the frames `frameskip` steps earlier for them.
"""

import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from wmbench.data.token_facts import FORMAT, MOST, read_about
from wmbench.data.token_shards import Rows, Shard, found, placed, split
from wmbench.data.windows import CPU, FrameNumbers, StoredFrames, compute_ahead, fits, observe, send, upload
from wmbench.files import try_lock, write_text
from wmbench.machine import progress_bar
from wmbench.processes.group import mine
from wmbench.processes.meeting import by_first, meet
from wmbench.shapes import Obs

CHUNK = 64  # frames that are encoded, written and checked together
CHECKED_CHUNKS, CHECKED_FRAMES = 16, 4  # when a file is opened: read again, encoded again
POLL_S = 0.5  # between two looks at a file that another process writes

Encode = Callable[[Obs], Tensor]  # observations (B T ..) as the episodes hold them -> tokens B T N D


class TokenFile:
    """The tokens of one data set, encoder and dtype, in one file or in shards; they need not exist yet.

    Args:
        folders: where they may be; shards that are missing are made in the first one with room.
        encoder: everything that its own tokens depend on apart from the frames, and its class as `name`.
        source: where its weights come from, for people.
        lookback: frames before its own that a frame's tokens depend on.
        frameskip: env steps from a frame to the next one of a window.
        shard_bytes: rows of a file, at most; what was begun with another size keeps it.

    Raises:
        ValueError: a file of this name that holds something else.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        episodes: EpisodeSet,
        encoder: Mapping[str, Any],
        packing: Packing,
        lookback: int,
        frameskip: int,
        source: str = "",
        shard_bytes: int | float = math.inf,
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
        self.name = f"{episodes.path.stem}_{encoder['name']}_{digest}"
        self.folders = list(folders)
        self.row_bytes = packing.num_bytes
        self.rows_bytes = len(self.numbers) * self.row_bytes
        self.num_chunks = -(-len(self.numbers) // CHUNK)
        least = -(-self.num_chunks // MOST)  # chunks of a shard
        wanted = self.num_chunks if self.rows_bytes <= shard_bytes else int(shard_bytes // (CHUNK * self.row_bytes))
        self.shard_frames = max(wanted, least) * CHUNK
        self._look()
        for shard in self.shards:
            shard.tell_if_cut_off()

    def _look(self) -> None:
        """Find the shards, of the size that they were begun with, and give those that are missing a place.

        Raises:
            ValueError: the first one holds something else.
        """
        paths = [folder / f"{self.name}.latents" for folder in self.folders]
        own = [about for about in map(read_about, paths) if about.get("key") == self.key]
        sizes = [about.get("shard_frames", len(self.numbers)) for about in own]
        for shard_frames in (*sizes, self.shard_frames):
            shards = found(split(paths[0], len(self.numbers), shard_frames, self.row_bytes, CHUNK), self.folders)
            if any(shard.is_begun for shard in shards):
                break
        self.shards, self.has_room = placed(shards, self.folders)
        if self.path.exists() and self.path.stat().st_size:
            self._check_key()

    @property
    def path(self) -> Path:
        """The first shard, which a command that writes any of them holds."""
        return self.shards[0].path

    @property
    def num_bytes(self) -> int:
        """Size of the finished files."""
        return sum(shard.num_bytes for shard in self.shards)

    @property
    def about_path(self) -> Path:
        """The JSON file that says what the rows are."""
        return self.path.with_suffix(".json")

    @property
    def remedy(self) -> str:
        folders = dict.fromkeys(str(shard.path.parent) for shard in self.shards)
        prune = f"python scripts/latents.py --dir {' '.join(folders)} --prune {self.name}"
        return f"delete it and run the command again: {f'rm {self.path}' if len(self.shards) == 1 else prune}"

    @property
    def num_done(self) -> int:
        """Frames whose tokens are written."""
        return sum(len(self._chunk(k)) for k in np.flatnonzero(self.journal()).tolist())

    @property
    def missing_bytes(self) -> int:
        """Bytes still to be written."""
        return sum(shard.missing_bytes for shard in self.shards)

    def journal(self) -> Int[ndarray, " chunks"]:
        """Entries of all chunks, 0 where one is not written."""
        return np.concatenate([shard.journal() for shard in self.shards])

    def write(self, encode: Encode) -> None:
        """Fill what is missing: while a chunk is encoded, the next one is read and the one before it written.

        The processes of a command share what is missing. Waits while another command writes, then writes what that has left.

        Raises:
            ValueError: tokens that the dtype cannot hold.
        """
        with ExitStack() as held:
            self.shards, todo = by_first(lambda: self._begin(held))
            todo = todo[mine()]
            done, number = self.num_done, sum(len(self._chunk(k)) for k in todo)
            bar = progress_bar(total=done + number, initial=done, desc="encoding frames", unit=" frames")
            read = closing(compute_ahead(self.observations, map(self._chunk, todo)))
            with bar, read as observations, ThreadPoolExecutor(1) as thread:
                written: Future[None] | None = None
                for k, obs in zip(todo, observations, strict=True):
                    rows = self.packing.pack(encode(obs)).cpu().numpy().reshape(-1, self.row_bytes)
                    if written is not None:
                        written.result()
                    written = thread.submit(self._shard(k).write_chunk, k, rows)
                    bar.update(len(rows))
                if written is not None:
                    written.result()
            meet()  # what holds the file for all is let go when all have written

    def _begin(self, held: ExitStack) -> tuple[list[Shard], list[int]]:
        """Hold the first shard, make those that are missing, and list them and the chunks that they lack."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        held.enter_context(self._locked())
        self._look()  # another command may have begun it meanwhile
        if missing := [shard for shard in self.shards if not shard.is_begun]:
            about = {"key": self.key, "row_bytes": self.row_bytes, "data_path": str(self.episodes.path)}
            if len(self.shards) > 1:
                about["shard_frames"] = len(self.shards[0].frames)
            write_text(self.about_path, json.dumps(about | {"source": self.source}, indent=2) + "\n")
            for shard in missing:
                shard.begin()
        return self.shards, np.flatnonzero(self.journal() == 0).tolist()

    def check(self, encode: Encode) -> None:
        """Check on some frames that the file holds what the encoder makes of them; mends some chunks, if they are damaged.

        Raises:
            ValueError: it is incomplete, or the tokens are another encoder's.
        """
        if not self.journal().all():
            raise ValueError(f"{self.path} is not complete; run the command that writes it again to finish it")
        rng = np.random.default_rng()  # other places each time
        rows = Rows(self.shards)
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
        rows = Rows(self.shards)
        if not fits(self.rows_bytes, device):
            return KeptTokens(self, rows, encode)
        chunks = (self.mended(rows, k, encode) for k in range(self.num_chunks))
        return KeptTokens(self, upload(chunks, rows.shape, device, "tokens to the GPU"), encode)

    def mended(self, rows: Rows, k: int, encode: Encode) -> UInt8[ndarray, "F bytes"]:
        """Read the rows of a chunk, encoded again where their checksum is not the one that they were written with."""
        number, shard = self._chunk(k), self._shard(k)
        if not shard.is_whole(k, read := rows[number]):
            print(f"note: {shard.path}: frames {number[0]} to {number[-1]} are damaged and encoded again", file=sys.stderr)
            with self._locked():
                if not shard.is_whole(k, rows[number]):  # another process may have mended it just now
                    packed = self.packing.pack(encode(self.observations(number))).cpu().numpy()
                    shard.write_chunk(k, packed.reshape(-1, self.row_bytes))
            read = rows[number]
        return read

    def observations(self, number: Int[ndarray, " F"]) -> Obs:
        """Observations of single frames by number, each with the `lookback` frames before it."""
        steps, episode = (place[:, None] for place in self.numbers.place(number))
        return observe(StoredFrames(self.episodes), self.episodes, steps, episode, self.lookback, self.frameskip, CPU)

    def _chunk(self, k: int) -> Int[ndarray, " F"]:
        """Numbers of the frames of chunk k."""
        return np.arange(k * CHUNK, min((k + 1) * CHUNK, len(self.numbers)))

    def _shard(self, k: int) -> Shard:
        """The shard that chunk k is in."""
        return self.shards[k * CHUNK // len(self.shards[0].frames)]

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        """Hold the first shard, made if it is missing, for writing by this process only; waits while another one writes."""
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
        rows: mapped from the files, whose chunks are checked when they are first read, or on a GPU.
        encode: for a chunk that is damaged.
    """

    encoded = True

    def __init__(self, file: TokenFile, rows: Rows | Tensor, encode: Encode):
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
        return self.file.packing.unpack(send(torch.from_numpy(self.rows[number]), device))
