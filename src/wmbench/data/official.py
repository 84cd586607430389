"""DINO-WM's published episodes as they are: a folder of tensors read in place, or the zip in which it is downloaded.

| file | holds |
| --- | --- |
| states.pth | (N, T, 4): x, y [m], vx, vy [m/s]; proprio is the same |
| actions.pth | (N, T, 2): the action taken in the state of the same step |
| seq_lengths.pth | (N,): how many of an episode's T steps are real |
| obses/episode_000.pth, ... | (T, h, h, 3): its frames, 0 to 255 |
| manifest.json | only where we wrote the folder: the manifest of our file |

Source: DINO-WM, datasets/point_maze_dset.py.
"""

import functools
import hashlib
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Shaped, UInt8
from numpy import ndarray
from torch import Tensor

from wmbench.data.columns import as_bytes, require_finite
from wmbench.data.episodes import Episodes, EpisodeSet, read_manifest
from wmbench.data.tensor_files import EXPECTED, Archive, Folder

# Episodes kept open. A mapped one costs address space and no open file, any other (torch's old format) all its frames.
MAPPED, LOADED = 4096, 8

PUBLISHED = {
    "env": "point_maze",
    "maze": ["#####", "#...#", "###.#", "#...#", "#####"],
    "policy": "uniform random actions in [-1, 1] from random states",
    "renderer": "mujoco-py",
    "render_lag": True,
    "rows": "y grows downwards (OpenGL order, as published)",
}


def open_episodes(path: str | os.PathLike[str]) -> EpisodeSet:
    """Open our file or a published folder; where there is no NAME.h5, the folder NAME.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: a zip, which is to be converted first, or data that cannot be read.
    """
    path = Path(path)
    if path.suffix == ".h5" and not path.exists():
        near = (path.with_suffix(""), path.with_suffix(".zip"))
        path = next((other for other in near if other.exists()), path)
    if path.is_dir():
        return OfficialEpisodes(path)
    if path.suffix == ".zip":
        output = path.with_suffix(".h5")
        raise ValueError(
            f"{path} is too slow to train from; convert it once: "
            f"{shlex.join(['python', 'scripts/import_dino_wm.py', 'data', str(path), str(output)])}"
        )
    return Episodes(path)


def recorded_path(data: Mapping[str, Any]) -> str | None:
    """Path of the data in a run's provenance, from any working folder; as it was given, if the data have moved."""
    absolute = data.get("absolute_path")
    return absolute if absolute and Path(absolute).exists() else data.get("path")


class OfficialEpisodes(EpisodeSet):
    """The published files, of which only the frames that are asked for are read.

    Opening a folder checks each of its files. Of a zip, which would have to be unpacked for that, it checks the columns,
    the first episode and the size of the others, whose shapes are checked when they are read.

    Args:
        path: the folder, or a zip that holds the files at its top or in one folder.

    Raises:
        FileNotFoundError: no such folder or zip, or a file missing from it.
        ValueError: a file that is truncated, of another kind, of the wrong shape, or one too many.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._files = Folder(self.path) if self.path.is_dir() else Archive(self.path)
        self._read_columns()
        self._names = [f"obses/episode_{k:03d}.pth" for k in range(len(self))]
        self._check_names()
        self.store_every = 1
        self.image_size = self._first_image_size()
        mapped = all(self._files.can_map(name) for name in self._names)
        self._episode = functools.lru_cache(MAPPED if mapped else LOADED)(self._open_episode)
        self.frames(np.array([0]), np.array([0]))  # are its values those of pixels?
        self._check_episodes()
        text = self._files.read("manifest.json") if "manifest.json" in self._files.sizes else "{}"
        written = read_manifest(text, self._files.locate("manifest.json"))
        self.manifest = (
            PUBLISHED
            | {key: value for key, value in written.items() if key != "hash"}
            | {"format": "dino_wm", "num_episodes": len(self), "episode_length": int(self.ep_len.max())}
            | {"store_every": 1, "image_size": self.image_size}
        )

    @property
    def hash(self) -> str:
        """Identity of the columns and, by their files' sizes and checksums, of the frames."""
        files = [(self._files.sizes[name], self._files.checksum(name)) for name in self._names]
        return hashlib.sha256(f"{super().hash} {files}".encode()).hexdigest()

    def frames(self, rows: Int[ndarray, "..."], episode: Int[ndarray, "..."]) -> UInt8[ndarray, "... h w 3"]:
        """Frames at step `rows` of their episodes (counted from the episode's start).

        Raises:
            ValueError: values that are not whole numbers from 0 to 255.
        """
        frames = np.empty((*rows.shape, self.image_size, self.image_size, 3), np.uint8)
        for k in np.unique(episode):
            stored = self._episode(int(k)).index_select(0, torch.as_tensor(rows[episode == k]))
            frames[episode == k] = as_bytes(self._files.locate(self._names[k]), stored.numpy())
        return frames

    def _read_columns(self) -> None:
        if missing := [name for name in ("states.pth", "actions.pth", "seq_lengths.pth") if name not in self._files.sizes]:
            raise FileNotFoundError(f"no {self._files.locate(missing[0])}; the published data are {EXPECTED}")
        states, actions, lengths = (self._files.load(f"{name}.pth") for name in ("states", "actions", "seq_lengths"))
        if states.ndim != 3 or states.shape[2] != 4 or not states.numel():
            raise ValueError(f"{self._files.locate('states.pth')} must be (N, T, 4), not {tuple(states.shape)}")
        num_episodes, self._num_steps = states.shape[:2]
        for name, tensor, shape in (
            ("actions.pth", actions, (num_episodes, self._num_steps, 2)),
            ("seq_lengths.pth", lengths, (num_episodes,)),
        ):
            if tensor.shape != shape:
                raise ValueError(
                    f"{self._files.locate(name)} must be {shape}, since states.pth is {tuple(states.shape)}, "
                    f"not {tuple(tensor.shape)}"
                )
        wrong = lengths[(lengths < 1) | (lengths > self._num_steps) | (lengths != lengths.long())]
        if len(wrong):
            raise ValueError(
                f"{self._files.locate('seq_lengths.pth')} must hold whole numbers from 1 to the {self._num_steps} steps "
                f"of states.pth, not {wrong[0].item()}"
            )
        self.ep_len = lengths.long().numpy()
        self.ep_offset = np.cumsum(self.ep_len) - self.ep_len
        real = torch.arange(self._num_steps) < lengths[:, None]
        last_rows = self.ep_offset + self.ep_len - 1
        self.state = self.proprio = require_finite(self._files.locate("states.pth"), states[real].float().numpy())
        self.action = require_finite(self._files.locate("actions.pth"), actions[real].float().numpy(), last_rows)

    def _check_names(self) -> None:
        found = {name for name in self._files.sizes if re.fullmatch(r"obses/episode_\d+\.pth", name)}
        if missing := [name for name in self._names if name not in found]:
            raise FileNotFoundError(
                f"no {self._files.locate(missing[0])}: {len(missing)} of {len(self)} episodes have no frames"
            )
        if extra := sorted(found - set(self._names)):
            raise ValueError(f"{self._files.locate(extra[0])} is one too many: states.pth has {len(self)} episodes")

    def _first_image_size(self) -> int:
        shape = tuple(self._files.load(self._names[0]).shape)
        if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3 or not shape[1]:
            raise ValueError(f"{self._files.locate(self._names[0])} must hold frames (T, h, h, 3), not {shape}")
        return shape[1]

    def _check_episodes(self) -> None:
        for k, name in enumerate(self._names):
            needed = int(self.ep_len[k]) * self.image_size**2 * 3
            if self._files.sizes[name] < needed:
                raise ValueError(
                    f"{self._files.locate(name)} has {self._files.sizes[name]:,} bytes: fewer than the {needed:,} of "
                    f"{self.ep_len[k]} frames of {self.image_size} px; it is truncated, download it again"
                )
            if k == 0 or isinstance(self._files, Folder):
                self._episode(k)

    def _open_episode(self, k: int) -> Shaped[Tensor, "T h h 3"]:
        stored = self._files.load(self._names[k])
        size, shape = self.image_size, tuple(stored.shape)
        if shape[1:] != (size, size, 3) or not self.ep_len[k] <= shape[0] <= self._num_steps:
            raise ValueError(
                f"{self._files.locate(self._names[k])} must be ({self._num_steps}, {size}, {size}, 3), "
                f"as states.pth and episode_000.pth say, not {shape}"
            )
        return stored[: self.ep_len[k]]
