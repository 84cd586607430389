"""What is read linearly from latents, true and foreseen: position, velocity, distance to a wall, and what was done."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from einops import reduce
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from wmbench.diagnostics.estimate import Estimate, Values, ratio
from wmbench.diagnostics.latents import Encoded
from wmbench.diagnostics.open_loop import rollouts
from wmbench.diagnostics.probe import fit_ridge, folded
from wmbench.envs.mazes import Maze
from wmbench.planning.agent import Dynamics

NUM_FEATURES = 512  # of a frame; of each of two where the action between them is read, half of it
FOLDS = 5


class Frames(NamedTuple):
    """Features of frames, what is to be read from them, and the frames' episodes."""

    features: Float[ndarray, "n K"]
    truth: Float[ndarray, "n Q"]
    episode: Int[ndarray, " n"]


def held_out_r2(fitted: Frames, read: Mapping[str, Frames]) -> dict[str, Estimate]:
    """R2 of a ridge probe on episodes that it was not fitted to, in `fitted` itself (as `true`) and in others' features.

    Each fifth of the episodes is read by a probe of the others. The interval is over episodes.

    Args:
        read: features and truth of the same episodes, by name.
    """
    every = {"true": fitted, **read}
    episodes = np.unique(fitted.episode)
    wrong = {name: np.zeros(len(episodes)) for name in every}
    spread = {name: np.zeros(len(episodes)) for name in every}
    for fold in range(min(FOLDS, len(episodes))):
        out = episodes[fold::FOLDS]
        weight, bias = fit_ridge(*(column[~np.isin(fitted.episode, out)] for column in fitted))
        for name, frames in every.items():
            middle = frames.truth.mean(0)
            for one in out:
                here = frames.episode == one
                truth = frames.truth[here]
                wrong[name][episodes == one] = np.square(frames.features[here] @ weight + bias - truth).sum()
                spread[name][episodes == one] = np.square(truth - middle).sum()
    return {name: _one_minus(ratio(wrong[name], spread[name])) for name in every}


@torch.no_grad()
def linear_probes(
    model: Dynamics, encoded: Encoded, maze: Maze, num_seen: int, horizon: int, device: torch.device
) -> Values:
    """R2 of position, velocity, wall distance and action, such as `position_true` and `position_predicted_1`, a step ahead.

    The action is a block's mean, read from a true frame and the one that follows it, true or foreseen one step ahead.
    """
    features = _features(encoded.z, NUM_FEATURES)
    last = [last for last, _ in rollouts(model, encoded, num_seen, horizon, device)]
    foreseen = torch.stack([z for _, z in rollouts(model, encoded, num_seen, horizon, device)], 1)  # E starts H N D
    ahead = {f"predicted_{step}": step for step in sorted({1, horizon})}
    values: Values = {}
    for name, truth in _truths(encoded.state, maze).items():
        read = {
            key: _frames(_features(foreseen[:, :, step - 1], NUM_FEATURES), truth[:, [at + step for at in last]])
            for key, step in ahead.items()
        }
        for key, estimate in held_out_r2(_frames(features, truth), read).items():
            values |= estimate.named(f"{name}_{key}")
    half = NUM_FEATURES // 2
    actions = reduce(encoded.action, "e t (f a) -> e t a", "mean", f=model.frameskip).double().numpy()
    one = _features(encoded.z, half)
    between = np.concatenate([one[:, :-1], one[:, 1:]], -1)
    to_next = np.concatenate([one[:, last], _features(foreseen[:, :, 0], half)], -1)
    read = {"predicted_1": _frames(to_next, actions[:, last])}
    for key, estimate in held_out_r2(_frames(between, actions[:, :-1]), read).items():
        values |= estimate.named(f"action_{key}")
    return values


def _truths(state: Float[ndarray, "E T 4"], maze: Maze) -> dict[str, Float[ndarray, "E T Q"]]:
    state = state.astype(np.float64)
    wall = maze.clearance(state[..., :2])[..., None]
    return {"position": state[..., :2], "velocity": state[..., 2:], "wall_distance": wall}


def _features(z: Float[Tensor, "E T N D"], number: int) -> Float[ndarray, "E T K"]:
    return folded(z.flatten(2), number).double().numpy()


def _frames(features: Float[ndarray, "E T K"], truth: Float[ndarray, "E T Q"]) -> Frames:
    episode = np.repeat(np.arange(len(features)), features.shape[1])
    return Frames(features.reshape(len(episode), -1), truth.reshape(len(episode), -1), episode)


def _one_minus(share: Estimate) -> Estimate:
    return Estimate(1 - share.value, 1 - share.high, 1 - share.low)
