"""DINO-WM's predictor with a Gaussian for an answer: a mean to plan with, and how far off it may be."""

from jaxtyping import Float
from torch import Tensor, nn

from wmbench.models.base import Losses
from wmbench.models.vit import FrameCausalViT

LOG_STD = (-5.0, 2.0)  # lowest and highest


class GaussianViT(FrameCausalViT):
    """A linear head on the ViT's output says the log-std of every number; the mean is what DINO-WM predicts.

    Args:
        mse_weight: of the mean's squared error, which is added to the likelihood.
    """

    def __init__(self, *, mse_weight: int | float, **sizes: int | float):
        super().__init__(**sizes)  # type: ignore[arg-type] - those of FrameCausalViT
        self.mse_weight = mse_weight
        self.log_std = nn.Linear(self.norm.normalized_shape[0], self.dim)

    def loss(self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"], target: Float[Tensor, "B T N D"]) -> Losses:
        """Negative log-likelihood [nats] of each number, up to a constant, and mse_weight times the mean squared error."""
        answer = self.transform(self.join(z, action))[:, :, : self.num_tokens]
        mean, log_std = answer[..., : self.dim], self.log_std(answer).clamp(*LOG_STD)
        error, log_std = mean.float() - target.float(), log_std.float()
        likelihood = (
            log_std + 0.5 * error.square() * (-2 * log_std).exp()
        ).mean()  # PyTorch's waits for the GPU to check it
        prediction = nn.functional.mse_loss(mean, target)
        total = likelihood + self.mse_weight * prediction
        return Losses(total, {"prediction": prediction.detach(), "nll": likelihood.detach()})
