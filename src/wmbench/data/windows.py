"""Windows of num_hist + num_pred frames, frameskip env steps apart, cut from episodes."""

import copy
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int, UInt8
from numpy import ndarray
from torch import Tensor

from wmbench.data.episodes import EpisodeSet
from wmbench.machine import progress_bar
from wmbench.shapes import Batch, Obs

CPU = torch.device("cpu")
RESIDENT = 0.5  # fraction of the free GPU memory that data may take; the rest is for training
UPLOADED_AT_ONCE = 256  # frames

Item = TypeVar("Item")
Result = TypeVar("Result")


@runtime_checkable
class Source(Protocol):
    """Where a window's visual part comes from: frames as they are stored, frames on the GPU, or their tokens."""

    encoded: bool  # tokens rather than frames

    def visual(self, steps: Int[ndarray, "B T"], episode: Int[ndarray, "B T"], device: torch.device) -> Tensor:
        """Frames or tokens at `steps` of their episodes, on the device."""
        ...


class Windows:
    """Every window of the given episodes.

    Frame t of a window lies at step start + t * frameskip; action block t holds the frameskip actions taken from that
    frame on, in time order, so it leads from frame t to frame t + 1. As in DINO-WM a window needs all of its
    num_frames * frameskip steps, though the last block leads nowhere: 81 windows in an episode of 100 steps.

    Args:
        which: numbers of the episodes.
        num_frames: frames of a window, num_hist + num_pred.

    Raises:
        ValueError: a frameskip whose frames are not stored, or episodes too short for a single window.
    """

    def __init__(self, episodes: EpisodeSet, which: Int[ndarray, " E"], num_frames: int, frameskip: int):
        if frameskip < 1 or frameskip % episodes.store_every:
            every = episodes.store_every
            nearest = sorted({max(1, frameskip // every) * every, max(1, -(-frameskip // every)) * every})
            raise ValueError(
                f"frameskip ({frameskip}) must be a multiple of the {every} steps between stored frames "
                f"in {episodes.path}; try frameskip={' or '.join(map(str, nearest))}"
            )
        if num_frames < 1:
            raise ValueError(f"num_hist + num_pred ({num_frames}) must be at least 1 frame, and num_hist by itself 1")
        self.episodes, self.which, self.num_frames, self.frameskip = episodes, which, num_frames, frameskip
        self.source: Source = StoredFrames(episodes)
        self.lookback = 0
        lasts = episodes.ep_len[which] - num_frames * frameskip
        starts = [np.arange(0, last + 1, episodes.store_every) for last in lasts]
        self.start: Int[ndarray, " W"] = np.concatenate([*starts, np.empty(0, np.int64)]).astype(np.int64)
        self.episode: Int[ndarray, " W"] = np.repeat(which, [len(s) for s in starts])
        if not len(self.start):
            longest = max(episodes.ep_len[which], default=0)
            raise ValueError(
                f"no episode of {episodes.path} has the {num_frames * frameskip} steps that {num_frames} frames at "
                f"frameskip {frameskip} need; the longest has {longest}, so lower frameskip or num_hist"
            )

    def __len__(self) -> int:
        return len(self.start)

    def showing(self, source: Source) -> "Windows":
        """The same windows, their visual part taken from another source."""
        other = copy.copy(self)
        other.source = source
        return other

    def looking_back(self, lookback: int) -> "Windows":
        """The same windows with more frames in front, for encoders that look back."""
        other = copy.copy(self)
        other.lookback = lookback
        return other

    def get(self, index: Int[ndarray, " B"], device: torch.device = CPU) -> Batch:
        """Read the windows numbered `index`, nothing of them normalised, onto the device."""
        steps = self.start[index, None] + self.frameskip * np.arange(self.num_frames)  # B T
        episode = np.broadcast_to(self.episode[index, None], steps.shape)
        rows = self.episodes.ep_offset[episode] + steps
        blocks = self.episodes.action[rows[..., None] + np.arange(self.frameskip)]  # B T frameskip 2
        obs = observe(self.source, self.episodes, steps, episode, self.lookback, self.frameskip, device)
        return Batch(obs, send(torch.from_numpy(blocks.reshape(*blocks.shape[:2], -1)), device))

    def batches(self, batch_size: int, seed: int, first_step: int = 0) -> Iterator[Int[ndarray, " B"]]:
        """Window numbers of endless shuffled batches; batch k is the same from whichever step training resumes.

        Every epoch is a new permutation keyed by (seed, epoch); an incomplete last batch is left out.
        """
        batch_size = min(batch_size, len(self))
        per_epoch = len(self) // batch_size
        step = first_step
        while True:
            epoch, first = divmod(step, per_epoch)
            order = np.random.default_rng((seed, epoch)).permutation(len(self))
            for k in range(first, per_epoch):
                yield order[k * batch_size : (k + 1) * batch_size]
                step += 1

    def held_out(self, batch_size: int, most: int) -> Iterator[Int[ndarray, " B"]]:
        """Window numbers of at most that many shuffled batches, the same every time; no window is in two of them."""
        return islice(self.batches(batch_size, seed=0), min(most, len(self) // min(batch_size, len(self))))


def split_windows(
    episodes: EpisodeSet, num_frames: int, frameskip: int, train_fraction: int | float = 0.9, split_seed: int = 42
) -> tuple[Windows, Windows]:
    """Windows to train on and windows to validate with, of different episodes.

    Raises:
        ValueError: settings that leave one of the two without a window.
    """
    count, windows = len(episodes), []
    for purpose, which in zip(("training", "validation"), episodes.split(train_fraction, split_seed), strict=True):
        if not len(which) and count == 1:
            raise ValueError(f"{episodes.path} has 1 episode; give at least 2, one to train on and one to validate with")
        if not len(which):
            raise ValueError(
                f"train_fraction ({train_fraction}) leaves none of the {count} episodes of {episodes.path} for {purpose}; "
                f"set it between {1 / count:.2g} and {1 - 1 / count:.2g}"
            )
        try:
            windows.append(Windows(episodes, which, num_frames, frameskip))
        except ValueError as error:
            raise ValueError(f"{error} ({purpose} has {len(which)} of {count} episodes)") from None
    return windows[0], windows[1]


def observe(
    source: Source,
    episodes: EpisodeSet,
    steps: Int[ndarray, "B T"],
    episode: Int[ndarray, "B T"],
    lookback: int,
    frameskip: int,
    device: torch.device,
) -> Obs:
    """Raw observations at the steps, with the `lookback` frames before them, frameskip steps apart.

    Before the start of an episode the first frame at this spacing repeats: at lookback 1 and frameskip 5 a frame before
    step 5 is its own predecessor, as if the ball had been at rest.
    """
    rows = episodes.ep_offset[episode] + steps
    obs = Obs(visual=source.visual(steps, episode, device), proprio=send(torch.from_numpy(episodes.proprio[rows]), device))
    if source.encoded:
        obs["encoded"] = True
    elif lookback:
        first = steps[:, :1]
        earlier = np.maximum(first - frameskip * np.arange(lookback, 0, -1), first % frameskip)  # B L
        obs["before"] = source.visual(earlier, np.broadcast_to(episode[:, :1], earlier.shape), device)
    return obs


class StoredFrames:
    """Frames, read where the episodes keep them."""

    encoded = False

    def __init__(self, episodes: EpisodeSet):
        self.episodes = episodes

    def visual(self, steps: Int[ndarray, "B T"], episode: Int[ndarray, "B T"], device: torch.device) -> Tensor:
        return send(torch.from_numpy(self.episodes.frames(steps, episode)), device)


class ResidentFrames:
    """Frames, all of them held on a device, where a batch is one selection of rows."""

    encoded = False

    def __init__(self, episodes: EpisodeSet, device: torch.device):
        self.numbers = FrameNumbers(episodes)
        size, count = episodes.image_size, len(self.numbers)
        self.shape = (size, size, 3)
        blocks = np.array_split(np.arange(count), -(-count // UPLOADED_AT_ONCE))
        frames = (episodes.frames(*self.numbers.place(number)).reshape(len(number), -1) for number in blocks)
        self.rows = upload(frames, (count, size * size * 3), device, "frames to the GPU")

    def visual(self, steps: Int[ndarray, "B T"], episode: Int[ndarray, "B T"], device: torch.device) -> Tensor:
        number = send(torch.from_numpy(self.numbers.of(steps, episode)), self.rows.device)
        return self.rows[number].unflatten(-1, self.shape).to(device)


class FrameNumbers:
    """The stored frames of a data set, counted through all episodes."""

    def __init__(self, episodes: EpisodeSet):
        self.store_every = episodes.store_every
        self.first = np.concatenate(
            [[0], np.cumsum(-(-episodes.ep_len // self.store_every))]
        )  # of each episode, and the end

    def __len__(self) -> int:
        return int(self.first[-1])

    def of(self, steps: Int[ndarray, "*B"], episode: Int[ndarray, "*B"]) -> Int[ndarray, "*B"]:
        return self.first[episode] + steps // self.store_every

    def place(self, number: Int[ndarray, "*B"]) -> tuple[Int[ndarray, "*B"], Int[ndarray, "*B"]]:
        """Steps and episodes of frames, by their numbers."""
        episode = np.searchsorted(self.first, number, side="right") - 1
        return (number - self.first[episode]) * self.store_every, episode


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Send a tensor to the device, to a GPU without waiting for it to arrive."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def compute_ahead(call: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
    """Yield what the call makes of each item; a thread works on the next one while the last result is in use."""
    with ThreadPoolExecutor(1) as thread:
        pending: Future[Result] | None = None
        for item in items:
            following = thread.submit(call, item)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()


def fits(num_bytes: int, device: torch.device) -> bool:
    """Whether data of that size may stay in the device's memory; only a GPU has memory of its own."""
    return device.type == "cuda" and num_bytes <= RESIDENT * torch.cuda.mem_get_info(device)[0]


def upload(
    blocks: Iterable[UInt8[ndarray, "F bytes"]], shape: tuple[int, int], device: torch.device, desc: str
) -> UInt8[Tensor, "rows bytes"]:
    """Copy all rows into one tensor on the device."""
    rows, done = torch.empty(shape, dtype=torch.uint8, device=device), 0
    with progress_bar(total=len(rows), desc=desc, unit=" rows", leave=False) as bar:
        for block in blocks:
            rows[done : done + len(block)] = torch.from_numpy(block).to(device)
            done += len(block)
            bar.update(len(block))
    return rows
