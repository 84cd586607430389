"""SIGReg: pushes latents towards an isotropic Gaussian, so that an encoder trained only by prediction cannot collapse.

Random one-dimensional projections are tested for normality by Epps and Pulley's distance between characteristic
functions (LeJEPA, arXiv 2511.08544; LeWM, arXiv 2603.19312).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

T_MAX, NUM_KNOTS = 3.0, 17


def epps_pulley(h: Float[Tensor, "*B N M"]) -> Float[Tensor, "*B M"]:
    """N times the weighted squared distance between each column's characteristic function and the normal's.

    The integral over the real line with weight exp(-t^2 / 2), by the trapezoid rule on 17 knots in [0, 3], doubled. A
    column of N(0, 1) samples has expectation 1.0525 at any N.
    """
    t = torch.linspace(0, T_MAX, NUM_KNOTS, device=h.device, dtype=h.dtype)
    normal = torch.exp(-(t**2) / 2)
    weight = torch.full_like(t, 2 * T_MAX / (NUM_KNOTS - 1))
    weight[[0, -1]] /= 2
    angle = h[..., None] * t  # B N M K
    distance = (angle.cos().mean(-3) - normal) ** 2 + angle.sin().mean(-3) ** 2
    return h.shape[-2] * (distance * weight * normal).sum(-1)


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
            directions = torch.randn(z.shape[-1], self.num_directions, device=z.device)
            h = z.float().permute(1, 2, 0, 3) @ nn.functional.normalize(directions, dim=0)  # T N B M
            return epps_pulley(h).mean()

    def loss_weight(self, batch_size: int) -> float:
        return self.weight * 128 / batch_size
