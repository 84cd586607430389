"""A window predictor of its own width, between a learned layer that leads in and a linear head that leads out."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from wmbench.models.attention import Memory
from wmbench.models.base import Predictor
from wmbench.models.window import WindowPredictor


class Projected(WindowPredictor):
    """Predicts tokens of any width and scale: what DINO-WM's predictor gives has the shape of its last LayerNorm.

    Encoders of several widths then share a predictor of one size. A rollout goes on from what the head gives, as training
    shows it.

    Args:
        build: a predictor, given `dim`.
        dim: features of a token of z.
        width: features of a token inside.

    Raises:
        ValueError: a predictor without a window, whose state would keep latents of the inner width, or with another loss.
    """

    def __init__(self, build: Callable[..., Predictor], dim: int, width: int):
        predictor = build(dim=width)
        if not isinstance(predictor, WindowPredictor):
            raise ValueError(
                f"matched.projection=learned needs a predictor that sees a window, such as vit or adaln, and "
                f"{type(predictor).__name__} does not; set matched.projection=random"
            )
        if type(predictor).loss is not Predictor.loss:
            raise ValueError(
                f"matched.projection=learned trains by the squared error, and {type(predictor).__name__} has a loss of its "
                "own; set matched.projection=random"
            )
        super().__init__(predictor.num_hist)
        self.slides = predictor.slides
        self.inward, self.predictor, self.head = nn.Linear(dim, width), predictor, nn.Linear(width, dim)

    def forward(self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"]) -> Float[Tensor, "B T N D"]:
        return self.head(self.predictor(self.inward(z), action))

    def extend(
        self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"], past: Memory, keep: bool
    ) -> tuple[Float[Tensor, "B N D"], Memory]:
        latent, memory = self.predictor.extend(self.inward(z), action, past, keep)
        return self.head(latent), memory

    def slide(self, memory: Memory) -> Memory:
        return self.predictor.slide(memory)
