"""A decoder as a trainee: it learns to draw from the latents of a trained world model, which it leaves as it is."""

from collections.abc import Generator
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from torch import Tensor, nn

from wmbench.data.windows import Source, Windows, compute_ahead
from wmbench.models.base import Losses
from wmbench.models.decoder import decode_frames, decoder_loss, frames_to_pixels
from wmbench.models.world_model import WorldModel
from wmbench.processes.batch import mean_of_all
from wmbench.processes.group import fair_rows, rows
from wmbench.runs.recipe import Recipe
from wmbench.shapes import Batch, Obs
from wmbench.training.part import PartTrainee
from wmbench.training.trainee import autocast


class Drawing(NamedTuple):
    """What is looked at, and what is to be drawn from it."""

    obs: Obs
    frames: UInt8[Tensor, "B T h w 3"]


class DecoderTrainee(PartTrainee):
    """Learns from the model's latents of single frames.

    Args:
        train: windows of one frame, so that a batch of the recipe is so many frames.
        valid: windows of two frames or more, the later ones of which are also decoded from the model's prediction.
        tokens: source of these frames' tokens, which then are not encoded for it.
    """

    shown, optimizer_class = "valid {valid_reconstruction:.4f}", torch.optim.Adam

    def __init__(self, *given: Any, tokens: Source | None = None):
        super().__init__(*given)
        self.tokens = tokens

    def batches(self, first_step: int) -> Generator[Drawing, None, None]:
        order = self.windows.batches(self.recipe.batch_size, self.seed, first_step)
        return compute_ahead(lambda index: self.drawing(index[rows(len(index))]), order)

    def drawing(self, index: Int[ndarray, " B"]) -> Drawing:
        obs = self.windows.get(index, self.device).obs
        frames = obs["visual"]
        return Drawing(self.windows.showing(self.tokens).get(index, self.device).obs if self.tokens else obs, frames)

    def forward(self, batch: Drawing) -> Losses:
        return _losses(self.module, _encode(self.model, batch.obs), batch.frames)

    def validate(self) -> dict[str, float]:
        return validate_decoder(self.model, self.module, self.valid, self.recipe)


@torch.no_grad()
def validate_decoder(model: WorldModel, decoder: nn.Module, valid: Windows, recipe: Recipe) -> dict[str, float]:
    """Mean squared pixel errors over the same held-out windows every time: of what the encoder saw, and of predictions."""
    device = next(model.parameters()).device
    decoder.eval()
    errors = []
    for index in valid.held_out(max(1, recipe.batch_size // valid.num_frames), recipe.valid_batches):
        batch = valid.get(index[fair_rows(len(index))], device)
        losses = [_losses(decoder, z, batch.obs["visual"][:, 1:]) for z in _seen_and_predicted(model, batch)]
        errors.append(torch.stack([loss.parts["reconstruction"] for loss in losses]))
    decoder.train()
    reconstruction, prediction = mean_of_all(torch.stack(errors).mean(0)).tolist()
    return {"valid_reconstruction": reconstruction, "valid_prediction": prediction}


@torch.no_grad()
def draw_samples(model: WorldModel, decoder: nn.Module, valid: Windows, count: int) -> UInt8[ndarray, "3 n h w 3"]:
    """Draw the last frames of evenly spread windows: real, decoded from their latents, and from the model's predictions."""
    index = np.unique(np.linspace(0, len(valid) - 1, count).astype(int))
    batch = valid.get(index, next(model.parameters()).device)
    decoded = [decode_frames(decoder.eval(), z[:, -1]) for z in _seen_and_predicted(model.eval(), batch)]
    return np.stack([batch.obs["visual"][:, -1].cpu().numpy(), *decoded])


@torch.no_grad()
def _encode(model: WorldModel, obs: Obs) -> Float[Tensor, "B T N D"]:
    """Visual latents."""
    with autocast(obs["visual"].device):
        return model.split(model.encode(obs))[0].float()


@torch.no_grad()
def _seen_and_predicted(model: WorldModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Visual latents (B T-1 N D) of all frames but the first, and what the model predicts for them one step ahead."""
    with autocast(batch.action.device):
        z = model.encode(batch.obs)
        predicted = model.predict(z[:, :-1], model.normalizer.normalize_action(batch.action)[:, :-1])
    return model.split(z[:, 1:])[0].float(), model.split(predicted)[0].float()


def _losses(decoder: nn.Module, visual: Float[Tensor, "B T N D"], frames: UInt8[Tensor, "B T h w 3"]) -> Losses:
    target = frames_to_pixels(frames.flatten(0, 1))
    with autocast(visual.device):
        return decoder_loss(decoder, visual.flatten(0, 1), target)
