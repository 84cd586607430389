"""DINO-WM's published data as one file of ours, and our data in its format."""

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from wmbench.data import episodes as storage
from wmbench.data.episodes import Episodes, EpisodeSet
from wmbench.data.official import OfficialEpisodes
from wmbench.envs.view import View
from wmbench.files import exclusive, put, writing
from wmbench.machine import progress_bar, size

Made = TypeVar("Made")

NO_ROOM = "make room, or give a DST where there is some; nothing half-written is left"


def convert_alone(convert: Callable[[Path, Path], Made], source: Path, output: Path) -> Made:
    """Convert, unless another process is writing the same output."""
    with ExitStack() as held:
        with writing(output, NO_ROOM):
            held.enter_context(exclusive(output, "wait for it, or give another DST"))
        return convert(source, output)


def import_data(source: Path, output: Path) -> bool:
    """Write the published data as one file of ours; returns whether that was still to be done."""
    if output.suffix != ".h5":
        raise ValueError(f"DST ({output}) must end in .h5, such as {output}.h5")
    episodes = OfficialEpisodes(source)
    if output.exists():
        if not same_contents(episodes, Episodes(output)):
            raise ValueError(f"{output} holds other data than {source}; give another DST or delete it")
        print(f"{output} is complete already")
        return False
    partial = storage.partial_path(output)
    partial.unlink(missing_ok=True)
    make_room(output, episodes)
    try:
        with writing(output, NO_ROOM):
            storage.create(partial, episodes.manifest, episodes.ep_len)
        contents = fill(partial, episodes)
        with writing(output, NO_ROOM):
            storage.write_manifest(partial, episodes.manifest | {"format": "wmbench-episodes-1", "hash": contents})
    except BaseException:
        partial.unlink(missing_ok=True)
        storage.manifest_path(partial).unlink(missing_ok=True)
        raise
    put(storage.manifest_path(partial), storage.manifest_path(output))
    put(partial, output)
    print(f"{output}: {len(episodes)} episodes, {size(output.stat().st_size)}")
    return True


def fill(path: Path, episodes: EpisodeSet) -> str:
    """Copy all columns into a file laid out for them; returns the hash of the contents."""
    columns = storage.map_columns(path, "r+")
    digest = hashlib.sha256(episodes.ep_len.tobytes())
    for name in ("action", "state", "proprio"):
        columns[name][:] = getattr(episodes, name)
        digest.update(getattr(episodes, name).tobytes())
    with progress_bar(total=len(columns["pixels"]), unit=" frames", desc="converting") as bar:
        for k, first in enumerate(episodes.ep_offset):
            frames = whole_episode(episodes, k)
            columns["pixels"][first : first + len(frames)] = frames
            digest.update(frames.tobytes())
            bar.update(len(frames))
    return digest.hexdigest()


def same_contents(one: EpisodeSet, other: EpisodeSet) -> bool:
    """Whether all columns and the frames of the first and the last episode are equal."""
    columns = ("ep_len", "action", "state", "proprio")
    return (
        (one.store_every, one.image_size) == (other.store_every, other.image_size)
        and all(np.array_equal(getattr(one, name), getattr(other, name)) for name in columns)
        and all(np.array_equal(whole_episode(one, k), whole_episode(other, k)) for k in (0, len(one) - 1))
    )


def export_data(source: Path, output: Path) -> None:
    """Write one of our files, which must hold every frame, as a folder in the published format."""
    episodes = Episodes(source)
    if episodes.store_every != 1:
        raise ValueError(
            f"{source} stores every {episodes.store_every}th frame, the published format all of them: "
            f"collect again with store_every=1"
        )
    if output.exists():
        raise ValueError(f"{output} exists already; give another DST or delete it")
    View.from_manifest(episodes.manifest, f"the manifest of {source}")  # else it would read as mujoco-py's, as published
    partial = storage.partial_path(output)
    shutil.rmtree(partial, ignore_errors=True)
    make_room(output, episodes)
    try:
        with writing(output, NO_ROOM):
            write_published(partial, episodes)
    except RuntimeError as error:  # which is how torch.save tells a full disk
        shutil.rmtree(partial, ignore_errors=True)
        raise OSError(f"{output} cannot be written: {str(error).partition(chr(10))[0]}; {NO_ROOM}") from None
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    put(partial, output)
    print(f"{output}: {len(episodes)} episodes in the published format")


def write_published(folder: Path, episodes: EpisodeSet) -> None:
    (folder / "obses").mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(episodes.manifest, indent=2) + "\n")
    torch.save(padded(episodes.state, episodes), folder / "states.pth")
    torch.save(padded(episodes.action, episodes), folder / "actions.pth")
    torch.save(torch.from_numpy(episodes.ep_len.astype(np.int64)), folder / "seq_lengths.pth")
    with progress_bar(total=int(episodes.ep_len.sum()), unit=" frames", desc="exporting") as bar:
        for k in range(len(episodes)):
            frames = whole_episode(episodes, k)
            torch.save(torch.from_numpy(frames), folder / "obses" / f"episode_{k:03d}.pth")
            bar.update(len(frames))


def padded(column: Float[ndarray, "rows D"], episodes: EpisodeSet) -> Float[Tensor, "N T D"]:
    """A column cut into episodes, with zeros after the end of the shorter ones."""
    parts = list(torch.split(torch.from_numpy(column), episodes.ep_len.tolist()))
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)


def whole_episode(episodes: EpisodeSet, k: int) -> UInt8[ndarray, "T h h 3"]:
    steps = np.arange(episodes.ep_len[k])
    return episodes.frames(steps, np.full_like(steps, k))


def make_room(output: Path, episodes: EpisodeSet) -> None:
    """Say how much will be written, and create its folder.

    Raises:
        ValueError: the disk has less.
    """
    rows = int(episodes.ep_len.sum())
    needed = rows * (episodes.image_size**2 * 3 + 40)  # pixels; 10 float32 of action, state and proprio
    free = shutil.disk_usage(next(parent for parent in output.absolute().parents if parent.exists())).free
    if needed > free:
        raise ValueError(f"{output} needs {size(needed)}, the disk has {size(free)} free; give a DST on another disk")
    with writing(output, NO_ROOM):
        output.parent.mkdir(parents=True, exist_ok=True)
    print(f"{output} will take {size(needed)} ({size(free)} free)", flush=True)
