"""What the columns of a data set must hold, however they are stored; nothing else may be trained on."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num, Shaped, UInt8
from numpy import ndarray

from wmbench.data.archives import LARGEST
from wmbench.envs.view import EnvSpec

LARGEST_SIDE = 4096  # pixels

WIDTHS = {"action": EnvSpec.action_dim, "state": 4, "proprio": EnvSpec.proprio_dim}
HOLDS = {"action": "the force along x and y", "state": "x, y, vx, vy", "proprio": "x, y, vx, vy"}


def check_layout(where: str, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Refuse a column of other width, rank or kind before it is read.

    Raises:
        ValueError: naming the column, what it is and what it must be.
    """
    if dtype.kind not in "fiu":
        raise ValueError(f"{where}: {name} must hold numbers, not {dtype}; write it as float32")
    if len(shape) != 2 or shape[1] != WIDTHS[name]:
        raise ValueError(
            f"{where}: {name} must be (rows, {WIDTHS[name]}), {HOLDS[name]}, not {shape}; "
            f"write the file again with those columns, or train on PointMaze's data: python scripts/collect.py"
        )


def check_sizes(where: str, columns: Mapping[str, Any]) -> None:
    """Refuse columns that would fill the memory: a small file may promise any number of rows.

    Raises:
        ValueError: more episodes than rows, frames of more than LARGEST_SIDE pixels, or more than 4 GiB of numbers.
    """
    episodes, rows, side = columns["ep_len"].size or 0, columns["state"].shape[0], columns["pixels"].shape[1]
    if episodes > rows:
        raise ValueError(f"{where}: ep_len has {episodes:,} episodes and state {rows:,} rows; each episode has one or more")
    if side > LARGEST_SIDE:
        raise ValueError(f"{where}: pixels of {side:,} a side, and at most {LARGEST_SIDE:,} are read; resize the frames")
    total = sum(column.nbytes for name, column in columns.items() if name != "pixels")
    if total > LARGEST:
        raise ValueError(
            f"{where}: its columns beside the pixels take {total:,} bytes, and at most {LARGEST:,} are read; split the file"
        )


def episode_lengths(where: str, found: Shaped[ndarray, "..."]) -> Int[ndarray, " episodes"]:
    """ep_len as int64.

    Raises:
        ValueError: not one whole number of at least 1 for each episode.
    """
    lengths = np.asarray(found)
    if lengths.ndim != 1 or not len(lengths):
        raise ValueError(f"{where} must hold one number for each episode, and at least one; it is {lengths.shape}")
    wrong = ~((lengths >= 1) & (lengths < 2**53) & (lengths == np.floor(lengths))) if lengths.dtype.kind in "fiu" else [True]
    if np.any(wrong):
        first = int(np.argmax(wrong))
        raise ValueError(f"{where} must hold whole numbers of at least 1, not {lengths[first]} (episode {first})")
    return lengths.astype(np.int64)


def require_finite(
    where: str, column: Float[ndarray, "rows D"], last_rows: Int[ndarray, " episodes"] | None = None
) -> Float[ndarray, "rows D"]:
    """Return the column if every number in it is finite.

    Args:
        last_rows: of each episode, for actions: the last one leads nowhere, and where another tool says so by NaN (as
            stable-worldmodel does) it becomes 0.

    Raises:
        ValueError: the first row that holds NaN or Inf.
    """
    if last_rows is not None:
        column[last_rows] = np.where(np.isnan(column[last_rows]), 0, column[last_rows])
    if len(wrong := np.argwhere(~np.isfinite(column))):
        row, k = wrong[0].tolist()
        kind = "NaN" if np.isnan(column[row, k]) else "Inf, or a number beyond float32's 3.4e38,"
        raise ValueError(
            f"{where} holds {kind} in row {row}, column {k} (NaN or Inf in {len(np.unique(wrong[:, 0])):,} of "
            f"{len(column):,} rows); leave out those episodes, or write the column again"
        )
    return column


def check_frames(where: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Refuse pixels in another layout than (frames, h, h, 3).

    Raises:
        ValueError: what they are, and how to make them what they must be.
    """
    side = shape[1] if len(shape) > 1 else 0
    if dtype.kind not in "fiu":
        raise ValueError(f"{where} must hold numbers, not {dtype}; write them as uint8 from 0 to 255")
    if len(shape) == 4 and shape[1] == shape[2] and shape[3] == 3 and side:
        return
    remedy = "crop or resize the frames"
    if len(shape) == 4 and shape[1] == 3:
        remedy = "put the channels last: np.moveaxis(pixels, 1, -1)"
    elif len(shape) == 4 and shape[3] == 4:
        remedy = "leave out the fourth channel: pixels[..., :3]"
    elif len(shape) == 3 or shape[-1:] == (1,):
        remedy = "give grey frames three equal channels: np.repeat(pixels.reshape(*pixels.shape[:3], 1), 3, -1)"
    raise ValueError(f"{where} must be (frames, h, h, 3), not {shape}; {remedy}")


def as_bytes(where: str, frames: Num[ndarray, "... h w 3"]) -> UInt8[ndarray, "... h w 3"]:
    """Frames of any kind of numbers as bytes.

    Raises:
        ValueError: values that are not whole numbers from 0 to 255, such as the fractions that torchvision makes of them.
    """
    if frames.dtype == np.uint8:
        return frames
    wrong = ~((frames >= 0) & (frames <= 255) & (frames == np.rint(frames)))
    if wrong.any():
        found = frames[wrong][0]
        remedy = "store np.rint(255 * pixels).astype(np.uint8)" if 0 < found < 1 else "store the pictures as uint8"
        raise ValueError(f"{where} must hold whole numbers from 0 to 255, not {found}; {remedy}")
    return frames.astype(np.uint8)
