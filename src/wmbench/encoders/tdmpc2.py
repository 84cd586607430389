"""TD-MPC2's encoder of pixels (arXiv 2310.16828): four convolutions, and a latent whose groups of numbers are simplices."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from wmbench.encoders.base import DINO_WM_MEAN, DINO_WM_STD, Encoder
from wmbench.processes.batch import with_noise

CONVOLUTIONS = ((7, 2), (5, 2), (3, 2), (3, 1))  # kernel and stride


class SimNorm(nn.Module):
    """The softmax within each group of features, moved and scaled so that one-hot groups would have mean 0 and variance 1.

    TD-MPC2 leaves out the last step, which only gives latents the scale of every other encoder's.

    Args:
        group: features of a group.
    """

    def __init__(self, group: int):
        super().__init__()
        self.group = group

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        share = x.unflatten(-1, (-1, self.group)).softmax(-1).flatten(-2)
        return (share * self.group - 1) / (self.group - 1) ** 0.5


class TDMPC2(Encoder):
    """One token a frame, trained with the model.

    Args:
        channels: of every convolution.
        embed_dim: of the latent.
        group: features of a simplex.
        max_shift: pixels that frames are shifted by at random in training, their borders repeated.

    Raises:
        ValueError: a latent that groups do not divide, or a frame too small for the convolutions.
    """

    def __init__(self, image_size: int, channels: int, embed_dim: int, group: int, max_shift: int):
        if group < 2 or embed_dim % group:
            raise ValueError(f"encoder.group ({group}) must be at least 2 and divide embed_dim ({embed_dim})")
        side, layers = image_size, []
        for number, (kernel, stride) in enumerate(CONVOLUTIONS):
            side = (side - kernel) // stride + 1
            layers += [nn.Conv2d(channels if number else 3, channels, kernel, stride), nn.ReLU()]
        if side < 1 or max_shift < 0:
            raise ValueError(f"image_size ({image_size}) must be at least 39, and max_shift ({max_shift}) not negative")
        super().__init__(
            image_size=image_size,
            grid=(1, 1),
            embed_dim=embed_dim,
            pixel_mean=DINO_WM_MEAN,
            pixel_std=DINO_WM_STD,
            frozen=False,
            source="trained with the model",
        )
        self.max_shift = max_shift
        self.trunk = nn.Sequential(*layers[:-1], nn.Flatten())
        self.head = nn.Sequential(nn.Linear(channels * side**2, embed_dim), SimNorm(group))

    def tokens(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F N D"]:
        pixels = self.shifted(pixels) if self.training and self.max_shift else pixels
        return self.head(self.trunk(pixels))[:, None]

    def shifted(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F 3 h w"]:
        """Each frame by a shift of its own."""
        most, side = self.max_shift, pixels.shape[-1]

        def shifts(frames: Tensor) -> Int[Tensor, "F 2"]:
            return torch.randint(0, 2 * most + 1, (2, len(frames)), device=frames.device).T

        padded = nn.functional.pad(pixels, (most,) * 4, mode="replicate")
        rows, columns = with_noise(shifts, pixels[:, 0, 0, 0]).T[..., None] + torch.arange(side, device=pixels.device)
        frame = torch.arange(len(pixels), device=pixels.device)[:, None, None]
        return padded[frame, :, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)
