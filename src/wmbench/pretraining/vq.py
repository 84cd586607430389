"""A tokenizer with a codebook (VQ-VAE, arXiv 1711.00937), as IRIS and GAIA-1 have one, without their perceptual losses."""

from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.codebook import COMMITMENT, RevivedCodebook
from wmbench.encoders.scratch import Scratch
from wmbench.models.base import Losses
from wmbench.pretraining.base import Pretraining
from wmbench.pretraining.drawing import Drawing
from wmbench.shapes import Batch


class VQ(Pretraining):
    """A frame is drawn from its tokens' nearest codes, which are the tokens of the finished encoder."""

    def __init__(self, encoder: Scratch, decoder: nn.Module, num_codes: int):
        super().__init__(encoder)
        encoder.codebook = RevivedCodebook(encoder.embed_dim, num_codes)
        self.drawing = Drawing(encoder, decoder)

    @property
    def codes(self) -> RevivedCodebook:
        assert isinstance(self.encoder.codebook, RevivedCodebook)
        return self.encoder.codebook

    def forward(self, pixels: Float[Tensor, "B T 3 h w"], batch: Batch) -> Losses:
        pixels = pixels.flatten(0, 1)
        codes, distance = self.codes(self.encoder.continuous(pixels).float())
        reconstruction = nn.functional.mse_loss(self.drawing(codes), pixels)
        return Losses(reconstruction + COMMITMENT * distance, {"reconstruction": reconstruction, "distance": distance})

    def measured(self) -> dict[str, float]:
        return {"codes": self.codes.perplexity}

    def draw(self, pixels: Float[Tensor, "F 3 h w"]) -> Float[Tensor, "F 3 h w"]:
        return self.drawing(self.encoder.tokens(pixels))
