"""A decoder as a trainee: it learns to draw from the latents of a trained world model, which it leaves as it is."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor, nn

from wmbench.data.windows import Windows
from wmbench.models.base import Losses
from wmbench.models.decoder import decode_frames, decoder_loss, frames_to_pixels
from wmbench.models.world_model import WorldModel
from wmbench.processes.batch import mean_of_all
from wmbench.processes.group import fair_rows
from wmbench.runs.recipe import Recipe
from wmbench.shapes import Batch, Obs
from wmbench.training.part import PartTrainee
from wmbench.training.trainee import autocast


class DecoderTrainee(PartTrainee):
    """Learns from the model's latents of single frames.

    Args:
        train: windows of one frame, so that a batch of the recipe is so many frames.
        valid: windows of two frames or more, the later ones of which are also decoded from the model's prediction.
    """

    shown, optimizer_class = "valid {valid_reconstruction:.4f}", torch.optim.Adam

    def forward(self, batch: Batch) -> Losses:
        return _losses(self.module, _encode(self.model, batch.obs), batch.obs)

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
        seen = Obs(visual=batch.obs["visual"][:, 1:], proprio=batch.obs["proprio"][:, 1:])
        losses = [_losses(decoder, z, seen) for z in _seen_and_predicted(model, batch)]
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


def _losses(decoder: nn.Module, visual: Float[Tensor, "B T N D"], obs: Obs) -> Losses:
    target = frames_to_pixels(obs["visual"].flatten(0, 1))
    with autocast(visual.device):
        return decoder_loss(decoder, visual.flatten(0, 1), target)
