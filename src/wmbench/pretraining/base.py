"""The contract of an objective for pretraining: an encoder, what trains it and is dropped afterwards, and a loss."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.scratch import Scratch
from wmbench.models.base import Losses
from wmbench.shapes import Batch


class Pretraining(nn.Module, ABC):
    """Trains an encoder on frames.

    It is built with the `encoder`, the settings of its own YAML and, where it takes them, a `decoder` from a map of tokens
    to frames of the encoder's size and `action_dim`, the numbers of an action block.

    num_frames, frameskip: frames of a window and env steps between them; frameskip None: of any distance.
    learns: False for one without a loss.
    """

    num_frames: int = 1
    frameskip: int | None = None
    learns: bool = True

    def __init__(self, encoder: Scratch):
        super().__init__()
        self.encoder = encoder

    @abstractmethod
    def forward(self, pixels: Float[Tensor, "B T 3 h w"], batch: Batch) -> Losses:
        """The loss of a batch.

        Args:
            pixels: the batch's frames at the encoder's size, in [-1, 1].
        """

    def after_step(self) -> None:
        """Called when the optimiser has moved the weights."""

    def measured(self) -> dict[str, float]:
        """What a training logs in addition to losses."""
        return {}

    @property
    def result(self) -> Scratch:
        """The encoder that is kept."""
        return self.encoder

    def draw(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F 3 h w"] | None:
        """What an objective that draws frames makes of them, in [-1, 1]; None from the others."""
        return None


class Untrained(Pretraining):
    """No objective: the encoder as its seed draws it, the floor."""

    learns = False

    def forward(self, pixels: Float[Tensor, "B T 3 h w"], batch: Batch) -> Losses:
        return Losses(pixels.new_zeros(()), {})


def summary(encoder: Scratch, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F D"]:
    """One vector for a frame: the mean of its tokens."""
    return encoder.map(pixels).mean(1)


def mlp(in_dim: int, hidden_dim: int, out_dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, out_dim))
