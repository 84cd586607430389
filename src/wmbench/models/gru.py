"""RWM's predictor: a recurrent network that also learns from forecasts on its own predictions (arXiv 2501.10100)."""

from typing import NamedTuple, Unpack

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.models.base import Latents, Losses
from wmbench.models.recurrent import Recurrent

LOG_STD = (-6.0, 1.0)  # lowest and highest


class Remembered(NamedTuple):
    """The newest latent, the hidden state of every layer behind the frames before it, and how unsure the latent is."""

    z: Float[Tensor, "B N D"]
    hidden: Float[Tensor, "B layers W"]
    std: Float[Tensor, "B N D"]


class GRUPredictor(Recurrent):
    """One hidden state for all tokens of a frame, however many frames it has seen.

    The first head says how the latent changes. The second one reads how far off the first is, without changing what the
    network learns; RWM fits both by one likelihood.

    Args:
        hidden_dim, num_layers: of the network.
        mlp_dim: inner width of a head.
        forecast: the last frames of a training window, which are foreseen from predictions alone.

    Raises:
        ValueError: a window too short for the forecast.
    """

    def __init__(self, hidden_dim: int, num_layers: int, mlp_dim: int, forecast: int, **latents: Unpack[Latents]):
        super().__init__()
        if forecast > latents["num_hist"]:
            raise ValueError(f"predictor.forecast ({forecast}) must not exceed num_hist ({latents['num_hist']})")
        self.forecast, self.num_tokens, self.hidden_dim = forecast, latents["num_tokens"], hidden_dim
        width = latents["num_tokens"] * latents["dim"]
        inputs = [width + latents["action_dim"]] + (num_layers - 1) * [hidden_dim]
        self.cells = nn.ModuleList(nn.GRUCell(size, hidden_dim) for size in inputs)
        self.change, self.log_std = (
            nn.Sequential(nn.Linear(hidden_dim, mlp_dim), nn.ELU(), nn.Linear(mlp_dim, width)) for _ in range(2)
        )

    def loss(self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"], target: Float[Tensor, "B T N D"]) -> Losses:
        """Squared errors after real frames and of the forecast, and the likelihood of the errors' size."""
        num_real = z.shape[1] - self.forecast + 1
        states = self.states(z[:, :num_real], action)
        mean, std = torch.stack([state.z for state in states], 1), torch.stack([state.std for state in states], 1)
        error = mean - target
        prediction = error[:, :num_real].square().mean()
        forecast = error[:, num_real - 1 :].square().mean()
        likelihood = (std.log() + 0.5 * (error.detach() / std).square()).mean()  # PyTorch's waits for the GPU to check it
        parts = {"prediction": prediction, "forecast": forecast, "std_nll": likelihood}
        return Losses(prediction + forecast + likelihood, parts)

    def blank(self, z: Float[Tensor, "B N D"]) -> Remembered:
        return Remembered(z, z.new_zeros(len(z), len(self.cells), self.hidden_dim), torch.zeros_like(z))

    def step(self, state: Remembered, action: Float[Tensor, "B A"]) -> tuple[Float[Tensor, "B N D"], Remembered]:
        x, hidden = torch.cat([state.z.flatten(1), action], dim=1), []
        for cell, before in zip(self.cells, state.hidden.unbind(1), strict=True):
            x = cell(x, before)
            hidden.append(x)
        z = state.z + rearrange(self.change(x), "b (n d) -> b n d", n=self.num_tokens)
        low, high = LOG_STD
        log_std = low + (high - low) * torch.sigmoid(self.log_std(x.detach()))
        return z, Remembered(z, torch.stack(hidden, 1), rearrange(log_std.exp(), "b (n d) -> b n d", n=self.num_tokens))

    @property
    def memory_dim(self) -> int:
        return len(self.cells) * self.hidden_dim

    def memory(self, state: Remembered) -> Float[Tensor, "B M"]:
        return state.hidden.flatten(1)

    def doubt(self, state: Remembered) -> Float[Tensor, " B"]:
        return state.std.mean((1, 2))
