"""What a latent knows: the ball's position, read from it linearly."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from wmbench.data.windows import Windows
from wmbench.encoders.weights import not_finite
from wmbench.models.effective_rank import effective_rank
from wmbench.models.world_model import WorldModel
from wmbench.runs.store import load_tensors, save_tensors
from wmbench.shapes import Obs

NUM_FEATURES = 1024  # that a probe sees, so that encoders with many tokens have no more of them to fit with
PENALTIES = np.logspace(-9, 1, 11)  # in units of the features' mean variance


@dataclass(frozen=True)
class Probe:
    """position = folded(z) @ weight + bias, with its R2 on validation frames and the effective rank of their latents."""

    weight: Float[Tensor, "F 2"]
    bias: Float[Tensor, "2"]
    r2: float
    rank: float | None = None  # of an older run's: not known

    def __call__(self, z: Float[Tensor, "*B N D"]) -> Float[ndarray, "*B 2"]:
        """Read positions (x, y) [m] from latents."""
        return (folded(z.flatten(-2).float().cpu(), len(self.weight)) @ self.weight + self.bias).numpy()

    def save(self, run: Path) -> "Probe":
        tensors = {"weight": self.weight.contiguous(), "bias": self.bias.contiguous(), "r2": torch.tensor(self.r2)}
        tensors |= {} if self.rank is None else {"rank": torch.tensor(self.rank)}
        save_tensors(run / "probe.safetensors", tensors)
        return self


def load_probe(run: Path) -> Probe | None:
    """Load the run's probe, None where it has none."""
    path = run / "probe.safetensors"
    if not path.exists():
        return None
    tensors, _ = load_tensors(path, remedy := "delete it and train.py fits it again")
    if not {"weight", "bias", "r2"} <= tensors.keys() or not_finite(tensors):
        raise ValueError(f"{path} is damaged (it is no probe, or holds NaN or Inf); {remedy}")
    rank = float(tensors["rank"]) if "rank" in tensors else None
    return Probe(tensors["weight"], tensors["bias"], float(tensors["r2"]), rank)


@torch.no_grad()
def fit_probe(model: WorldModel, train: Windows, valid: Windows, num_frames: int = 2000) -> Probe:
    """Fit ridge regression from the latents of training frames to the ball's position; its R2 is on validation frames.

    Every encoder gets the same frames and at most NUM_FEATURES features.
    """
    z, position, episode = _frames(model, train, num_frames)
    weight, bias = fit_ridge(z, position, episode)
    z_valid, position_valid, _ = _frames(model, valid, num_frames)
    r2 = _r2(z_valid @ weight + bias, position_valid)
    return Probe(torch.from_numpy(weight).float(), torch.from_numpy(bias).float(), r2, effective_rank(z_valid))


def fit_ridge(
    x: Float[ndarray, "n K"], y: Float[ndarray, "n Q"], episode: Int[ndarray, " n"]
) -> tuple[Float[ndarray, "K Q"], Float[ndarray, " Q"]]:
    """Weight and bias under the penalty that is best on every fifth episode, held out for that; then all are fitted."""
    number = np.unique(episode, return_inverse=True)[1]
    held_out = number % 5 == 0 if number.any() else np.arange(len(x)) % 5 == 0  # a single episode: every fifth frame
    weights, biases = ridge(x[~held_out], y[~held_out], PENALTIES)
    scores = [_r2(x[held_out] @ w + b, y[held_out]) for w, b in zip(weights, biases, strict=True)]
    (weight,), (bias,) = ridge(x, y, PENALTIES[[int(np.argmax(scores))]])
    return weight, bias


def folded(x: Float[Tensor, "*B F"], num_features: int) -> Float[Tensor, "*B K"]:
    """At most num_features features: random signs, and sums of features drawn together, the same ones every time.

    Distances survive that (a sparse Johnson-Lindenstrauss map), so what a few directions of x say can still be read.
    """
    width = x.shape[-1]
    if width <= num_features:
        return x
    rng = np.random.RandomState(0)  # the one generator of numpy whose stream is promised not to change
    bucket = torch.from_numpy(rng.permutation(width) % num_features)
    sign = torch.from_numpy(rng.choice(np.array([-1, 1], np.float32), width))
    return x.new_zeros(*x.shape[:-1], num_features).index_add_(-1, bucket, x * sign)


def ridge(
    x: Float[ndarray, "n K"], y: Float[ndarray, "n Q"], penalties: Float[ndarray, " P"]
) -> tuple[list[Float[ndarray, "K Q"]], list[Float[ndarray, " Q"]]]:
    """Weights and biases, one for each penalty on the squared weights (biases are free)."""
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    size, directions = np.linalg.eigh(x.T @ x / len(x))
    size, along = np.maximum(size, 0), directions.T @ (x.T @ y / len(x))
    scale = size.mean() or 1.0  # features that never change say nothing, at any penalty
    weights = [directions @ (along / (size + penalty * scale)[:, None]) for penalty in penalties]
    return weights, [y_mean - x_mean @ weight for weight in weights]


def _r2(read: Float[ndarray, "n Q"], truth: Float[ndarray, "n Q"]) -> float:
    missed, spread = np.square(read - truth).sum(), np.square(truth - truth.mean(0)).sum()
    return float(1 - missed / spread) if spread else float(missed == 0)  # scikit-learn's word for a truth that never changes


def _frames(
    model: WorldModel, windows: Windows, num_frames: int
) -> tuple[Float[ndarray, "n K"], Float[ndarray, "n 2"], Int[ndarray, " n"]]:
    """Features, positions and episode numbers of the first frames of evenly spread windows."""
    device = next(model.parameters()).device
    index = np.unique(np.linspace(0, len(windows) - 1, num_frames).astype(int))
    features, positions = [], []
    for chunk in np.array_split(index, max(1, len(index) // 64)):
        obs = windows.get(chunk, device).obs
        first = Obs(**{**obs, "visual": obs["visual"][:, :1], "proprio": obs["proprio"][:, :1]})
        features.append(folded(model.encode(first)[:, 0].flatten(1).float().cpu(), NUM_FEATURES))
        positions.append(obs["proprio"][:, 0, :2].cpu())
    return torch.cat(features).double().numpy(), torch.cat(positions).double().numpy(), windows.episode[index]
