"""What a latent knows: the ball's position, read from it linearly."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from safetensors.torch import load_file, save_file
from torch import Tensor

from wmbench.data.windows import Windows
from wmbench.models.world_model import WorldModel
from wmbench.shapes import Obs


@dataclass(frozen=True)
class Probe:
    """position = latent @ weight + bias, with its R2 on held-out frames."""

    weight: Float[Tensor, "F 2"]
    bias: Float[Tensor, "2"]
    r2: float

    def __call__(self, z: Float[Tensor, "*B N D"]) -> Float[ndarray, "*B 2"]:
        """Positions (x, y) [m] read from latents."""
        return (z.flatten(-2).cpu() @ self.weight + self.bias).numpy()

    def save(self, run: Path) -> None:
        tensors = {"weight": self.weight.contiguous(), "bias": self.bias.contiguous(), "r2": torch.tensor(self.r2)}
        save_file(tensors, run / "probe.safetensors")


def load_probe(run: Path) -> Probe | None:
    """The run's probe, or None where it has none."""
    path = run / "probe.safetensors"
    if not path.exists():
        return None
    tensors = load_file(path)
    return Probe(tensors["weight"], tensors["bias"], float(tensors["r2"]))


@torch.no_grad()
def fit_probe(model: WorldModel, train: Windows, valid: Windows, num_frames: int = 2000) -> Probe:
    """Least squares from the latents of training frames to the ball's position, judged on validation frames."""
    z, position = _frames(model, train, num_frames)
    inputs = torch.cat([z, z.new_ones(len(z), 1)], 1)
    solution = torch.linalg.lstsq(inputs, position, driver="gelsd").solution  # the smallest where features outnumber frames
    probe = Probe(solution[:-1], solution[-1], 0.0)
    z_valid, position_valid = _frames(model, valid, num_frames)
    error = torch.from_numpy(probe(z_valid[:, None])) - position_valid
    r2 = 1 - error.square().sum() / (position_valid - position_valid.mean(0)).square().sum()
    return Probe(probe.weight, probe.bias, float(r2))


def _frames(model: WorldModel, windows: Windows, num_frames: int) -> tuple[Float[Tensor, "n F"], Float[Tensor, "n 2"]]:
    """Latents and positions of the first frames of evenly spread windows."""
    device = next(model.parameters()).device
    index = np.unique(np.linspace(0, len(windows) - 1, num_frames).astype(int))
    latents, positions = [], []
    for chunk in np.array_split(index, max(1, len(index) // 64)):
        obs, _ = windows.get(chunk)
        first = Obs(visual=obs["visual"][:, :1].to(device), proprio=obs["proprio"][:, :1].to(device))
        latents.append(model.encode(first)[:, 0].flatten(1).float().cpu())
        positions.append(obs["proprio"][:, 0, :2])
    return torch.cat(latents), torch.cat(positions)
