"""Time-contrastive learning: frames near in time are alike, far ones are not (R3M's idea, arXiv 2203.12601)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.scratch import Scratch
from wmbench.models.base import Losses
from wmbench.pretraining.base import Pretraining, mlp, summary
from wmbench.processes.batch import all_rows_with_gradients
from wmbench.processes.group import rank
from wmbench.shapes import Batch


class TCL(Pretraining):
    """A frame's embedding picks the next one out of a later one of its episode and those of other windows (InfoNCE).

    Args:
        far: model steps to the frame that is not near; the near one is 1 step away.
        frameskip: env steps of a model step.
        temperature: of the cosines.
        embed_dim, hidden_dim: of a projector that is dropped afterwards.
    """

    def __init__(
        self, encoder: Scratch, far: int, frameskip: int, temperature: int | float, embed_dim: int, hidden_dim: int
    ):
        if far < 2:
            raise ValueError(f"far ({far}) must be at least 2: the near frame is 1 step away")
        super().__init__(encoder)
        self.num_frames, self.frameskip, self.temperature = far + 1, frameskip, temperature
        self.project = mlp(encoder.embed_dim, hidden_dim, embed_dim)

    def forward(self, pixels: Float[Tensor, "B T 3 h w"], batch: Batch) -> Losses:
        chosen = torch.cat([pixels[:, 0], pixels[:, 1], pixels[:, -1]])
        here, near, far = self.project(summary(self.encoder, chosen)).float().chunk(3)
        loss = contrast(here, near, far, self.temperature)
        return Losses(loss, {"contrast": loss})


def contrast(
    here: Float[Tensor, "B D"], near: Float[Tensor, "B D"], far: Float[Tensor, "B D"], temperature: int | float
) -> Float[Tensor, ""]:
    """Mean negative log probability of the own near frame among the near frames of all windows and the own far one."""
    here, near, far = (nn.functional.normalize(z, dim=-1) for z in (here, near, far))
    cosines = torch.cat([here @ all_rows_with_gradients(near).T, (here * far).sum(-1, keepdim=True)], dim=1)
    own = rank() * len(here) + torch.arange(len(here), device=here.device)
    return nn.functional.cross_entropy(cosines / temperature, own)
