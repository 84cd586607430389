"""Self-distillation between views of a frame (DINO, arXiv 2104.14294): semantic features that stay the same under views."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.scratch import Scratch
from wmbench.models.base import Losses
from wmbench.pretraining.base import mlp, summary
from wmbench.pretraining.teacher import Taught, Teacher
from wmbench.pretraining.views import multi_crop
from wmbench.processes.batch import mean_of_all
from wmbench.shapes import Batch


class DINO(Taught):
    """A student tells from one view, large or small, which prototypes a teacher sees in another, large one.

    The teacher's scores are centred and sharpened, which keeps both from agreeing on one answer for all. It is kept.

    Args:
        num_prototypes, hidden_dim: of the head, whose last layer has rows of length 1.
        decay: of the teacher's average.
        teacher_temperature, student_temperature: of the softmax over prototypes.
        centre_decay: of the mean score that is subtracted from the teacher's.
        large, small: least and largest share of a frame that a view shows.
        num_small: small views; there are two large ones.
    """

    centre: Tensor

    def __init__(
        self,
        encoder: Scratch,
        num_prototypes: int,
        hidden_dim: int,
        decay: int | float,
        teacher_temperature: int | float,
        student_temperature: int | float,
        centre_decay: int | float,
        large: Sequence[int | float],
        small: Sequence[int | float],
        num_small: int,
    ):
        super().__init__(encoder, decay)
        self.head = Head(encoder.embed_dim, hidden_dim, num_prototypes)
        self.teacher_head = Teacher(self.head, decay)
        self.register_buffer("centre", torch.zeros(num_prototypes))
        self.temperatures, self.centre_decay = (teacher_temperature, student_temperature), centre_decay
        self.large, self.small, self.num_small = large, small, num_small

    def forward(self, pixels: Float[Tensor, "B T 3 h w"], batch: Batch) -> Losses:
        pixels = pixels.flatten(0, 1)
        views = multi_crop(pixels, self.large, self.small, self.num_small)
        with torch.no_grad():
            seen = self.teacher_head.network(summary(self.result, torch.cat(views[:2]))).float()
            target = ((seen - self.centre) / self.temperatures[0]).softmax(-1).chunk(2)
            if self.training:
                self.centre.lerp_(mean_of_all(seen.mean(0)), 1 - self.centre_decay)
        scores = (self.head(summary(self.encoder, torch.cat(views))).float() / self.temperatures[1]).chunk(len(views))
        loss = self_distillation(target, scores)
        return Losses(loss, {"distillation": loss})

    def after_step(self) -> None:
        super().after_step()
        self.teacher_head.follow(self.head)


class Head(nn.Module):
    """Scores of prototypes: cosines with a frame's vector."""

    def __init__(self, dim: int, hidden_dim: int, num_prototypes: int):
        super().__init__()
        self.layers = mlp(dim, hidden_dim, dim)
        self.prototypes = nn.Parameter(torch.randn(num_prototypes, dim))

    def forward(self, z: Float[Tensor, "F D"]) -> Float[Tensor, "F K"]:
        return nn.functional.normalize(self.layers(z), dim=-1) @ nn.functional.normalize(self.prototypes, dim=-1).T


def self_distillation(
    target: tuple[Float[Tensor, "F K"], ...], scores: tuple[Float[Tensor, "F K"], ...]
) -> Float[Tensor, ""]:
    """Mean cross-entropy of a view's scores under the target of each other view."""
    pairs = [(t, s) for t in range(len(target)) for s in range(len(scores)) if s != t]
    return torch.stack([-(target[t] * scores[s].log_softmax(-1)).sum(-1).mean() for t, s in pairs]).mean()
