"""An objective for pretraining as a trainee: what it minimises, and whether the encoder's tokens collapse under it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from numpy import ndarray
from PIL import Image

from wmbench.data.windows import Windows
from wmbench.machine import own_draws
from wmbench.models.base import Losses
from wmbench.models.decoder import pixels_to_frames
from wmbench.models.effective_rank import effective_rank
from wmbench.pretraining.base import Pretraining
from wmbench.processes.group import alone
from wmbench.runs.recipe import Recipe
from wmbench.shapes import Batch
from wmbench.training.tokenizer import above_and_below
from wmbench.training.trainee import EncoderTrainee, autocast

ROUNDING = 1e-5  # a standard deviation below this part of the tokens' size is rounding error
FEW = 2  # directions: what the ball's position alone needs


class PretrainingTrainee(EncoderTrainee):
    """Learns with the encoder and whatever the objective adds to it.

    Args:
        train, valid: windows of as many frames as the objective looks at.
    """

    what = "pretraining"
    shown = "valid {valid_loss:.4f}, effective rank {effective_rank:.1f}"

    def __init__(self, objective: Pretraining, train: Windows, valid: Windows, recipe: Recipe, seed: int):
        trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
        optimizer.register_step_post_hook(lambda *given: objective.after_step())
        super().__init__(objective, optimizer, train, recipe, seed)
        self.objective, self.valid = objective, valid
        self.encoder, self.learns = objective.result, objective.learns

    def forward(self, batch: Batch) -> Losses:
        visual = batch.obs["visual"]
        pixels = rearrange(self.encoder.preprocess(visual), "(b t) c h w -> b t c h w", b=len(visual))
        with autocast(visual.device):
            return self.module(pixels, batch)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean loss over the same held-out windows and views every time, and how the tokens of their frames are spread."""
        was_training = self.module.training
        self.module.eval()
        losses, tokens = [], []
        with own_draws(self.device), alone():  # views and negatives are those of whole batches
            torch.manual_seed(0)
            for index in self.valid.held_out(self.recipe.batch_size, self.recipe.valid_batches):
                batch = self.valid.get(index, self.device)
                losses.append(self.forward(batch).total)
                tokens.append(self.encoder(batch.obs)[:, 0].float().cpu())
        self.module.train(was_training)
        loss = {"valid_loss": torch.stack(losses).mean().item()} if self.objective.learns else {}
        return loss | spread(torch.cat(tokens).flatten(1).double().numpy()) | self.objective.measured()

    def told(self, results: Mapping[str, Any]) -> str:
        """How much of their space held-out frames fill; that they have collapsed comes first where they have."""
        rank, share = results["effective_rank"], results["token_std"]
        collapsed = f"note: collapsed: a rank below {FEW} cannot tell where the ball is\n" if rank < FEW else ""
        return f"{collapsed}held-out frames: effective rank of tokens {rank:.1f}, which vary by {share:.2%} of their size"

    @torch.no_grad()
    def picture(self) -> Image.Image | None:
        index = np.unique(np.linspace(0, len(self.valid) - 1, 6).astype(int))
        pixels = self.encoder.preprocess(self.valid.get(index, self.device).obs["visual"][:, :1])
        drawn = self.objective.eval().draw(pixels)
        return None if drawn is None else above_and_below(pixels_to_frames(torch.stack([pixels, drawn.float()])))


def spread(tokens: Float[ndarray, "F K"]) -> dict[str, float]:
    """Effective rank of frames' tokens, and their standard deviation over frames as a part of their size.

    Both are 0 where frames differ by rounding only.
    """
    size, std = np.sqrt(np.square(tokens).mean()), np.sqrt(tokens.var(axis=0).mean())
    share = float(std / size) if size else 0.0
    if share <= ROUNDING:
        return {"effective_rank": 0.0, "token_std": 0.0}
    return {"effective_rank": effective_rank(tokens), "token_std": share}
