"""Episodes on disk: one HDF5 file of flat columns, the layout that stable-worldmodel and LeWM's tools read.

| column | shape | holds |
| --- | --- | --- |
| pixels | (frames, h, w, 3) uint8 | every `store_every`-th frame of each episode |
| action | (rows, 2) float32 | the action taken in `state` of the same row |
| state, proprio | (rows, 4) float32 | x, y [m], vx, vy [m/s] |
| ep_len, ep_offset | (episodes,) int64 | rows of an episode and its first row |
| map | (episodes,) int64 | number of an episode's map, where the data are of a set of them (`MazeSet`) |

The attribute `manifest` (JSON) says how the file came about. All columns are contiguous on disk and laid out before the
first row is written, so that several processes can fill one file through memory maps and a kill leaves it readable.
"""

import errno
import hashlib
import json
import os
import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from jaxtyping import Float, Int, Num, Shaped, UInt8
from numpy import ndarray

from wmbench.data.columns import WIDTHS, as_bytes, check_frames, check_layout, check_sizes, episode_lengths, require_finite
from wmbench.data.hdf5 import check_filters, check_links, check_place, explained, reading
from wmbench.files import parse_json, write_text

COLUMNS = ("pixels", "action", "state", "proprio", "ep_len", "ep_offset")
LOOKED_AT = 16  # frames, spread over the file, that are checked when it is opened


def partial_path(path: Path) -> Path:
    """Where a file grows until it is complete."""
    return path.with_name(path.name + ".partial")


def create(path: Path, manifest: Mapping[str, Any], ep_len: Int[ndarray, " episodes"] | None = None) -> None:
    """Lay out an empty file for the manifest's num_episodes, episode_length, store_every and image_size.

    Args:
        ep_len: where episodes differ in length; otherwise each has episode_length rows.
    """
    lengths = np.full(manifest["num_episodes"], manifest["episode_length"], np.int64) if ep_len is None else ep_len
    rows, frames, size = lengths.sum(), (-(-lengths // manifest["store_every"])).sum(), manifest["image_size"]
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    layout.set_obj_track_times(False)  # the same contents make the same file
    path.write_bytes(b"")
    _reserve(path, int(frames) * size**2 * 3 + int(rows) * 40)  # asked before HDF5, which tells a full disk in 20 lines
    with h5py.File(path, "w") as file:
        for name, shape, dtype in (
            ("pixels", (frames, size, size, 3), h5py.h5t.STD_U8LE),
            ("action", (rows, 2), h5py.h5t.IEEE_F32LE),
            ("state", (rows, 4), h5py.h5t.IEEE_F32LE),
            ("proprio", (rows, 4), h5py.h5t.IEEE_F32LE),
        ):
            h5py.h5d.create(file.id, name.encode(), dtype, h5py.h5s.create_simple(shape), dcpl=layout)
        file["ep_len"] = lengths
        if maps := manifest.get("num_maps"):
            file["map"] = np.arange(len(lengths)) % maps
        file["ep_offset"] = np.cumsum(lengths) - lengths
        file.attrs["manifest"] = json.dumps(manifest)
    _reserve(path, path.stat().st_size)


def _reserve(path: Path, num_bytes: int) -> None:
    """Take the file's space on the disk now: where it runs out, a memory map is ended by a signal and no error.

    Raises:
        OSError: the disk has not enough.
    """
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, num_bytes)
        except AttributeError:  # macOS has no such call
            pass
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot
                raise


def map_columns(path: Path, mode: str = "r") -> dict[str, np.memmap]:
    """The contiguous columns of a file as memory maps; others (chunked or compressed by other tools) are left out."""
    with h5py.File(path, "r") as file:
        columns: dict[str, Any] = {name: file[name] for name in ("pixels", "action", "state", "proprio")}
        places = {
            name: (column.id.get_offset(), column.shape, column.dtype)
            for name, column in columns.items()
            if column.id.get_offset() is not None
        }
    return {
        name: np.memmap(path, dtype, mode, offset, shape)  # type: ignore[call-overload]
        for name, (offset, shape, dtype) in places.items()
    }


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Store the manifest in the file, and as text next to it for people to read."""
    with h5py.File(path, "r+") as file:
        file.attrs["manifest"] = json.dumps(manifest)
    write_text(manifest_path(path), json.dumps(manifest, indent=2) + "\n")


def manifest_path(path: Path) -> Path:
    return path.with_name(f"{path.name.removesuffix('.h5')}.manifest.json")


def read_manifest(text: Any, where: str) -> dict[str, Any]:
    """Read a manifest's facts, of which some may be missing.

    Raises:
        ValueError: it is no JSON, no facts by name, or its store_every is not a number of steps.
    """
    remedy = "write the file again, or delete its manifest: the facts are then asked of the configuration"
    try:
        manifest = parse_json(text)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where} is damaged ({error}); {remedy}") from None
    if not isinstance(manifest, dict):
        raise ValueError(f"{where} must be facts by name, not {str(text)[:40]}; {remedy}")
    every = manifest.get("store_every", 1)
    if type(every) is not int or not 1 <= every < 2**31:
        raise ValueError(f"{where} says store_every {every!r}, which must be a whole number of at least 1; {remedy}")
    return manifest


class EpisodeSet(ABC):
    """What every stored data set offers: the small columns in memory, frames on demand."""

    path: Path
    manifest: dict[str, Any]
    store_every: int
    image_size: int
    action: Float[ndarray, "rows A"]
    state: Float[ndarray, "rows 4"]
    proprio: Float[ndarray, "rows P"]
    ep_len: Int[ndarray, " episodes"]
    ep_offset: Int[ndarray, " episodes"]

    def __len__(self) -> int:
        return len(self.ep_len)

    @abstractmethod
    def frames(self, rows: Int[ndarray, "..."], episode: Int[ndarray, "..."]) -> UInt8[ndarray, "... h w 3"]:
        """Frames at step `rows` of their episodes (counted from the episode's start)."""

    @property
    def hash(self) -> str:
        """Identity of the contents: the manifest's hash, or one of the small columns where another tool wrote the file."""
        columns = (self.action, self.state, self.ep_len)
        return str(self.manifest.get("hash") or "") or hashlib.sha256(b"".join(c.tobytes() for c in columns)).hexdigest()

    @property
    def provenance(self) -> dict[str, Any]:
        """What a run keeps of its data: how they came about, what they are, and where, also seen from another folder."""
        place = {"path": str(self.path), "absolute_path": str(self.path.absolute())}
        return self.manifest | place | {"hash": self.hash}

    def split(
        self, train_fraction: int | float = 0.9, seed: int = 42
    ) -> tuple[Int[ndarray, " train"], Int[ndarray, " valid"]]:
        """Episode numbers for training and validation; whole episodes, so no window of one shares a frame with the other.

        DINO-WM's split (datasets/traj_dset.py): torch's permutation, of which the first int(train_fraction * N) train.

        Raises:
            ValueError: a train_fraction that is no part of the whole.
        """
        if not 0 <= train_fraction <= 1:
            raise ValueError(f"train_fraction ({train_fraction}) must be a part of the episodes, such as 0.9")
        if not -(2**63) <= seed < 2**64:
            raise ValueError(f"split_seed ({seed}) must be a number of at most 64 bits, such as 42")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed)).numpy()
        num_train = int(train_fraction * len(self))
        return np.sort(order[:num_train]), np.sort(order[num_train:])


class Episodes(EpisodeSet):
    """A finished file, opened for reading; nothing but the small columns is held in memory.

    Raises:
        FileNotFoundError: no such file, or one whose collection is not finished.
        OSError: a file that may be well and cannot be read now: in use, not permitted.
        ValueError: not an HDF5 file, truncated, with columns missing or of the wrong shape or compression, or that hold
            NaN or Inf.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._check_exists()
        with reading(self.path) as file:
            columns = self._datasets(file)
            self.ep_len = episode_lengths(f"{self.path}: ep_len", columns["ep_len"][()])
            self.manifest = read_manifest(file.attrs.get("manifest", "{}"), f"the manifest of {self.path}")
            self.store_every = self.manifest.get("store_every", 1)
            self._frame_offset = np.concatenate([[0], np.cumsum(-(-self.ep_len // self.store_every))])
            self._check_shapes(columns)
            self.ep_offset = self._offsets(columns["ep_offset"][()])
            last_rows = self.ep_offset + self.ep_len - 1
            self.action = require_finite(f"{self.path}: action", columns["action"].astype(np.float32)[:], last_rows)
            self.state = require_finite(f"{self.path}: state", columns["state"].astype(np.float32)[:])
            self.proprio = require_finite(f"{self.path}: proprio", columns["proprio"].astype(np.float32)[:])
        pixels = map_columns(self.path).get("pixels")
        self.pixels: Any = pixels if pixels is not None else h5py.File(self.path, "r")["pixels"]
        self.image_size = self.pixels.shape[1]
        as_bytes(f"{self.path}: pixels", self._stored(np.linspace(0, len(self.pixels) - 1, LOOKED_AT).astype(int)))

    def frames(self, rows: Int[ndarray, "..."], episode: Int[ndarray, "..."]) -> UInt8[ndarray, "... h w 3"]:
        """Frames at step `rows` of their episodes (counted from the episode's start).

        Raises:
            ValueError: a step whose frame was not stored, or numbers that are no pixels.
        """
        if (rows % self.store_every).any():
            raise ValueError(f"{self.path} stores every {self.store_every}th frame; step {rows.max()} is not among them")
        index = self._frame_offset[episode] + rows // self.store_every
        return as_bytes(f"{self.path}: pixels", self._stored(index))

    def _stored(self, index: Int[ndarray, "..."]) -> Num[ndarray, "... h w 3"]:
        """Frames by their number in the file, in the file's own kind of numbers."""
        if isinstance(self.pixels, np.memmap):
            return self.pixels[index]
        unique, inverse = np.unique(index, return_inverse=True)  # HDF5 wants sorted indices without repeats
        try:
            return self.pixels[unique][inverse.reshape(index.shape)]
        except OSError as error:
            raise explained(self.path, error) from None

    def _check_exists(self) -> None:
        if self.path.exists():
            return
        if partial_path(self.path).exists():
            raise FileNotFoundError(f"{self.path} is not complete yet; run the command that makes it again to finish it")
        raise FileNotFoundError(
            f"no data set at {self.path}; make one with: "
            f"python scripts/collect.py env=point_maze {shlex.quote(f'output={self.path}')}"
        )

    def _datasets(self, file: h5py.File) -> dict[str, h5py.Dataset]:
        """The columns, not read yet, each of a layout that can be read."""
        check_links(self.path, file, COLUMNS)
        if missing := [name for name in COLUMNS if name not in file]:
            raise ValueError(f"{self.path} lacks the columns {missing}; a data set has {list(COLUMNS)}")
        columns: dict[str, Any] = {name: file[name] for name in COLUMNS}
        for name, column in columns.items():
            if not isinstance(column, h5py.Dataset):
                raise ValueError(f"{self.path}: {name} must be a column of numbers, not a group; write the file again")
            check_place(self.path, column)
            check_filters(self.path, column)
            if name in WIDTHS:
                check_layout(str(self.path), name, column.shape, column.dtype)
        check_frames(f"{self.path}: pixels", columns["pixels"].shape, columns["pixels"].dtype)
        check_sizes(str(self.path), columns)
        return columns

    def _check_shapes(self, columns: Mapping[str, h5py.Dataset]) -> None:
        rows, frames = int(self.ep_len.sum()), int(self._frame_offset[-1])
        found = {name: columns[name].shape[0] for name in ("action", "state", "proprio", "pixels")}
        wanted = {"action": rows, "state": rows, "proprio": rows, "pixels": frames}
        if found != wanted:
            said, remedy = f"the manifest's store_every is {self.store_every}", "write the file again, or correct ep_len"
            if "store_every" not in self.manifest:
                said = "no manifest says store_every, so every step should have a frame"
                fitting = [str(k) for k in range(2, 101) if (-(-self.ep_len // k)).sum() == found["pixels"]]
                if fitting:
                    fact = f'{{"store_every": {" or ".join(fitting)}}}'
                    remedy = f'put {fact} into its attribute "manifest", or write the file again'
            raise ValueError(f"{self.path}: ep_len promises {wanted} rows, the columns have {found} ({said}); {remedy}")
        for key, truth in (("image_size", columns["pixels"].shape[1]), ("num_episodes", len(self.ep_len))):
            if (said := self.manifest.get(key, truth)) != truth:
                raise ValueError(f"the manifest of {self.path} says {key} {said!r}, the columns {truth}; correct it")

    def _offsets(self, found: Shaped[ndarray, "..."]) -> Int[ndarray, " episodes"]:
        offsets = np.cumsum(self.ep_len) - self.ep_len
        if not np.array_equal(found, offsets):
            raise ValueError(
                f"{self.path}: ep_offset must be where the episodes before end, by ep_len; write the episodes in order"
            )
        return offsets
