"""Windows of num_hist + num_pred frames, frameskip env steps apart, cut from episodes."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from wmbench.data.episodes import EpisodeSet
from wmbench.shapes import Obs


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
        if frameskip % episodes.store_every:
            raise ValueError(
                f"frameskip ({frameskip}) must be a multiple of the {episodes.store_every} steps between stored frames "
                f"in {episodes.path}"
            )
        self.episodes, self.num_frames, self.frameskip = episodes, num_frames, frameskip
        lasts = episodes.ep_len[which] - num_frames * frameskip
        starts = [np.arange(0, last + 1, episodes.store_every) for last in lasts]
        self.start: Int[ndarray, " W"] = np.concatenate([*starts, np.empty(0, np.int64)]).astype(np.int64)
        self.episode: Int[ndarray, " W"] = np.repeat(which, [len(s) for s in starts])
        if not len(self.start):
            raise ValueError(
                f"no episode of {episodes.path} has the {num_frames * frameskip} steps that {num_frames} frames at "
                f"frameskip {frameskip} need"
            )

    def __len__(self) -> int:
        return len(self.start)

    def get(self, index: Int[ndarray, " B"]) -> tuple[Obs, Float[Tensor, "B T A"]]:
        """Raw observations and action blocks (not normalised) of the windows numbered `index`."""
        steps = self.start[index, None] + self.frameskip * np.arange(self.num_frames)  # B T
        episode = np.broadcast_to(self.episode[index, None], steps.shape)
        rows = self.episodes.ep_offset[episode] + steps
        blocks = self.episodes.action[rows[..., None] + np.arange(self.frameskip)]  # B T frameskip 2
        obs = Obs(
            visual=torch.from_numpy(self.episodes.frames(steps, episode)),
            proprio=torch.from_numpy(self.episodes.proprio[rows]),
        )
        return obs, torch.from_numpy(blocks.reshape(*blocks.shape[:2], -1))

    def batches(self, batch_size: int, seed: int, first_step: int = 0) -> Iterator[Int[ndarray, " B"]]:
        """Window numbers of endless shuffled batches; batch k is the same whatever step training resumes from.

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
