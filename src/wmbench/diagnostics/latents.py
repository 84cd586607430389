"""Latents of recorded episodes and of simulated states."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from wmbench.data.windows import Windows
from wmbench.envs.vector import PointMazes
from wmbench.planning.agent import Dynamics
from wmbench.shapes import Obs

FRAMES_AT_ONCE = 64
OnFrames = Callable[[int], object]  # told how many frames were just encoded


class Encoded(NamedTuple):
    """E episodes, a frame for each block of actions.

    action: normalised; block t leads from frame t to frame t + 1.
    state: x, y [m], vx, vy [m/s].
    """

    z: Float[Tensor, "E T N D"]
    action: Float[Tensor, "E T A"]
    state: Float[ndarray, "E T 4"]


@torch.no_grad()
def encode_episodes(
    model: Dynamics, windows: Windows, device: torch.device, on_frames: OnFrames = lambda count: None
) -> Encoded:
    """Encode the first window of each episode; latents are kept on the CPU."""
    latents, actions, states = [], [], []
    for index in np.unique(windows.episode, return_index=True)[1]:
        batch = windows.get(index[None], device)
        latents.append(model.encode(batch.obs).cpu())
        actions.append(model.normalizer.normalize_action(batch.action).cpu())
        states.append(batch.obs["proprio"].cpu().numpy())
        on_frames(windows.num_frames)
    return Encoded(torch.cat(latents), torch.cat(actions), np.concatenate(states))


@torch.no_grad()
def encode_states(
    model: Dynamics,
    env: PointMazes,
    states: Float[ndarray, "n T 4"],
    device: torch.device,
    was_set: bool,
    on_frames: OnFrames = lambda count: None,
    episode: Int[ndarray, " n"] | None = None,
) -> Float[Tensor, "n N D"]:
    """Latents of the last of T states a block of actions apart, drawn and encoded, on the CPU.

    Args:
        was_set: the states were not stepped to, as starts and goals are not.
        episode: whose look each has; by default all have the same one's.
    """
    latents, parts = [], max(1, -(-len(states) * states.shape[1] // FRAMES_AT_ONCE))
    episode = np.zeros(len(states), int) if episode is None else episode
    for some, looks in zip(np.array_split(states, parts), np.array_split(episode, parts), strict=True):
        drawn = env.frames(some.reshape(-1, 4), was_set, np.repeat(looks, some.shape[1]))
        frames = torch.from_numpy(drawn).unflatten(0, some.shape[:2])
        obs = Obs(visual=frames.to(device), proprio=torch.from_numpy(some).float().to(device))
        latents.append(model.encode(obs)[:, -1].cpu())
        on_frames(len(some))
    return torch.cat(latents)
