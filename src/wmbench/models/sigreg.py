"""SIGReg: pushes latents towards an isotropic Gaussian, so that an encoder trained only by prediction cannot collapse.

Random one-dimensional projections are tested for normality by Epps and Pulley's distance between characteristic
functions (LeJEPA, arXiv 2511.08544; LeWM, arXiv 2603.19312).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.processes.batch import from_first, mean_of_all
from wmbench.processes.group import num_processes

T_MAX, NUM_KNOTS = 3.0, 17


def epps_pulley(h: Float[Tensor, "*B N M"]) -> Float[Tensor, "*B M"]:
    """N times the weighted squared distance between each column's characteristic function and the normal's.

    The integral over the real line with weight exp(-t^2 / 2), by the trapezoid rule on 17 knots in [0, 3], doubled. A
    column of N(0, 1) samples has expectation 1.0525 at any N.
    Where the samples are spread over processes, each of which has as many, the statistic is that of all.
    """
    return _EppsPulley.apply(h)


class _EppsPulley(torch.autograd.Function):
    """The statistic and its slope in one pass, with one sine and one cosine for each sample.

    The knots are multiples of the first one, so the other angles follow from its by turning.
    """

    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        first = T_MAX / (NUM_KNOTS - 1)
        cos, sin = (h * first).cos()[None], (h * first).sin()[None]
        while len(cos) < NUM_KNOTS - 1:  # 1, 2, 4, 8, 16 knots; at 0 every characteristic function is 1
            cos, sin = (torch.cat([cos, cos * cos[-1] - sin * sin[-1]]), torch.cat([sin, sin * cos[-1] + cos * sin[-1]]))
        t = (first * torch.arange(1, NUM_KNOTS, device=h.device, dtype=h.dtype)).view(-1, *h.dim() * [1])
        normal = torch.exp(-(t**2) / 2)
        weight = 2 * first * normal
        weight[-1] /= 2
        real, imaginary = mean_of_all(cos.mean(-2, keepdim=True)) - normal, mean_of_all(sin.mean(-2, keepdim=True))
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward((2 * weight * t * imaginary * cos).sub_(2 * weight * t * real * sin).sum(0))
        return num_processes() * h.shape[-2] * (weight * (real**2 + imaginary**2)).sum(0).squeeze(-2)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        return num_processes() * gradient[0].unsqueeze(-2) * slope  # gradients are averaged over processes later


class SIGReg(nn.Module):
    """The statistic averaged over random directions, time steps and tokens.

    Args:
        num_directions: unit vectors, drawn anew at every call.
        weight: of the statistic in the loss, at a batch of 128; its pull grows with the batch, so the loss uses
            weight * 128 / batch.
    """

    def __init__(self, num_directions: int, weight: float):
        super().__init__()
        self.num_directions, self.weight = num_directions, weight

    def forward(self, z: Float[Tensor, "B T N D"]) -> Float[Tensor, ""]:
        """Compute it in fp32 also under autocast: a bf16 projection is too coarse for a characteristic function."""
        with torch.autocast(z.device.type, enabled=False):
            directions = from_first(torch.randn(z.shape[-1], self.num_directions, device=z.device))
            h = z.float().permute(1, 2, 0, 3) @ nn.functional.normalize(directions, dim=0)  # T N B M
            return epps_pulley(h).mean()

    def loss_weight(self, batch_size: int) -> float:
        return self.weight * 128 / (num_processes() * batch_size)
