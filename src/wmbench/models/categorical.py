"""IRIS's idea (arXiv 2209.00588) on DINO-WM's ViT: what follows each token is one of many codes, told by probabilities."""

from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.codebook import WeightedCodebook
from wmbench.models.base import Losses
from wmbench.models.vit import FrameCausalViT


class CategoricalViT(FrameCausalViT):
    """Learns by cross-entropy which code is nearest to each token that follows; foresees the codes' expectation.

    An expectation is differentiable and has no noise, and all tokens of a frame come from one pass, where IRIS draws them
    one after another. The codes follow the tokens of training; those of encoder=dino_tok_vq lie on codes already.

    Args:
        num_codes: for all tokens.
    """

    def __init__(self, *, num_codes: int, **sizes: int | float):
        super().__init__(**sizes)  # type: ignore[arg-type] - those of FrameCausalViT
        self.codebook = WeightedCodebook(self.dim, num_codes)
        self.logits = nn.Linear(self.norm.normalized_shape[0], num_codes)

    def answer(self, x: Float[Tensor, "*B M W"]) -> Float[Tensor, "*B N D"]:
        return self.logits(x[..., : self.num_tokens, :]).softmax(-1) @ self.codebook.embed.T

    def loss(self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"], target: Float[Tensor, "B T N D"]) -> Losses:
        tokens = target.detach().float().flatten(0, 2)
        nearest = self.codebook.nearest(tokens)
        self.codebook.learn(tokens, nearest)
        logits = self.logits(self.transform(self.join(z, action))[:, :, : self.num_tokens])
        entropy = nn.functional.cross_entropy(logits.float().flatten(0, 2), nearest)
        prediction = nn.functional.mse_loss(logits.detach().softmax(-1) @ self.codebook.embed.T, target.detach())
        return Losses(entropy, {"prediction": prediction, "cross_entropy": entropy.detach()})
