"""How fast a rollout drifts from what happens, against copying the last frame and against other episodes' actions."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from wmbench.diagnostics.estimate import Values, mean, ratio
from wmbench.diagnostics.latents import Encoded
from wmbench.planning.agent import Dynamics

EPISODES_AT_ONCE = 16


@torch.no_grad()
def rollouts(
    model: Dynamics, encoded: Encoded, num_seen: int, horizon: int, device: torch.device, shuffled: bool = False
) -> Iterator[tuple[int, Float[Tensor, "E H N D"]]]:
    """Numbers of the last frames seen, and the latents foreseen from there; starts lie `horizon` frames apart.

    Args:
        shuffled: under the actions of the next episode.

    Raises:
        ValueError: episodes shorter than the frames that the model sees and the horizon.
    """
    num_frames = encoded.z.shape[1]
    if horizon < 1 or num_seen + horizon > num_frames:
        raise ValueError(
            f"episodes of {num_frames} frames hold no {num_seen} seen and {horizon} foreseen ones; lower horizon"
        )
    actions = encoded.action.roll(1, 0) if shuffled else encoded.action
    for last in range(num_seen - 1, num_frames - horizon, horizon):
        first, chunks = last - num_seen + 1, range(0, len(encoded.z), EPISODES_AT_ONCE)
        foreseen = [
            model.rollout(
                encoded.z[k : k + EPISODES_AT_ONCE, first : last + 1].to(device),
                encoded.action[k : k + EPISODES_AT_ONCE, first:last].to(device),
                actions[k : k + EPISODES_AT_ONCE, None, last : last + horizon].to(device),
            )[:, 0].cpu()
            for k in chunks
        ]
        yield last, torch.cat(foreseen)


def open_loop_errors(
    model: Dynamics, encoded: Encoded, num_seen: int, horizon: int, device: torch.device
) -> dict[str, Float[ndarray, "E H"]]:
    """Mean squared errors of visual latents at each step of each episode: `model`, `copy` and `shuffled`."""
    errors: dict[str, list[Float[Tensor, "E H"]]] = {"model": [], "copy": [], "shuffled": []}
    for last, foreseen in rollouts(model, encoded, num_seen, horizon, device):
        truth = encoded.z[:, last + 1 : last + 1 + horizon]
        errors["model"].append(squared_error(model, foreseen, truth))
        errors["copy"].append(squared_error(model, encoded.z[:, last, None], truth))
    for last, foreseen in rollouts(model, encoded, num_seen, horizon, device, shuffled=True):
        errors["shuffled"].append(squared_error(model, foreseen, encoded.z[:, last + 1 : last + 1 + horizon]))
    return {name: torch.stack(parts).mean(0).double().numpy() for name, parts in errors.items()}


def open_loop(errors: dict[str, Float[ndarray, "E H"]]) -> Values:
    """Errors by step, and their ratios to those of copying and of shuffled actions: below 1 the model is the better."""
    values: Values = {}
    for step in range(errors["model"].shape[1]):
        own, copied, shuffled = (errors[name][:, step] for name in ("model", "copy", "shuffled"))
        values |= mean(own).named(f"error_{step + 1}")
        values |= ratio(own, copied).named(f"copy_ratio_{step + 1}")
        values |= ratio(own, shuffled).named(f"shuffled_ratio_{step + 1}")
    return values


def squared_error(model: Dynamics, z: Float[Tensor, "E #H N D"], truth: Float[Tensor, "E H N D"]) -> Float[Tensor, "E H"]:
    return (model.split(z)[0] - model.split(truth)[0]).square().mean((-2, -1))
