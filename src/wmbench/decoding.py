"""Fitting a decoder to the latents of a trained world model, which it leaves as it is."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor, nn

from wmbench.checkpoint import save_decoder
from wmbench.data.windows import Windows
from wmbench.models.decoder import DecoderLoss, decode_frames, decoder_loss, frames_to_pixels
from wmbench.models.world_model import WorldModel
from wmbench.shapes import Obs
from wmbench.store import DECODER_RESUME, load_resume, save_resume
from wmbench.training import Recipe, autocast, run_steps

METRICS = "decoder_metrics.csv"


def fit_decoder(
    model: WorldModel,
    decoder: nn.Module,
    config: Mapping[str, Any],
    train: Windows,
    valid: Windows,
    recipe: Recipe,
    run: Path,
    *,
    seed: int,
    announce: Callable[[float], None],
    log: Callable[[dict[str, float | int]], None],
) -> None:
    """Train to recipe.max_steps with Adam, going on from what `run` holds, and leave the decoder in evaluation mode.

    Args:
        config: the decoder's, kept beside its weights.
        train: windows of one frame, so that a batch of the recipe is so many frames.
        valid: windows of two frames or more, the later ones of which are also decoded from the model's prediction.
        announce, log: as in training.fit.

    Raises:
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after the step in progress is finished and saved.
    """
    device = next(model.parameters()).device
    model.eval()
    fused = device.type == "cuda"
    optimizer = torch.optim.Adam(decoder.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=fused)
    step = load_resume(run, decoder, optimizer, DECODER_RESUME)
    if step < recipe.max_steps:
        announce((recipe.max_steps - step) * _trial_step(model, decoder, train, recipe.batch_size))
    batches = train.batches(recipe.batch_size, seed, first_step=step)
    decoder.train()
    run_steps(
        optimizer,
        recipe,
        step,
        loss_of_next=lambda: _next_loss(model, decoder, train, next(batches)),
        measure=lambda loss: {
            "reconstruction": loss.reconstruction.item(),
            "diff": loss.diff.item(),
            **validate_decoder(model, decoder, valid, recipe),
        },
        save=lambda step: save_decoder(run, config, decoder),
        save_state=lambda step: save_resume(run, step, decoder, optimizer, DECODER_RESUME),
        metrics=run / METRICS,
        desc="training decoder",
        shown="valid {valid_reconstruction:.4f}",
        log=log,
    )
    decoder.eval()


@torch.no_grad()
def validate_decoder(model: WorldModel, decoder: nn.Module, valid: Windows, recipe: Recipe) -> dict[str, float]:
    """Mean squared pixel errors over the same held-out windows every time: of what the encoder saw, and of predictions."""
    device = next(model.parameters()).device
    decoder.eval()
    batches = valid.batches(max(1, recipe.batch_size // valid.num_frames), seed=0)
    errors = []
    for _ in range(recipe.valid_batches):
        obs, action = valid.get(next(batches), device)
        seen = Obs(visual=obs["visual"][:, 1:], proprio=obs["proprio"][:, 1:])
        errors.append(torch.stack([_loss(decoder, z, seen).reconstruction for z in _seen_and_predicted(model, obs, action)]))
    decoder.train()
    reconstruction, prediction = torch.stack(errors).mean(0).tolist()
    return {"valid_reconstruction": reconstruction, "valid_prediction": prediction}


@torch.no_grad()
def samples(model: WorldModel, decoder: nn.Module, valid: Windows, count: int) -> UInt8[ndarray, "3 n h w 3"]:
    """The last frames of evenly spread windows: real, decoded from their latents, and from the model's predictions."""
    index = np.unique(np.linspace(0, len(valid) - 1, count).astype(int))
    obs, action = valid.get(index, next(model.parameters()).device)
    decoded = [decode_frames(decoder.eval(), z[:, -1]) for z in _seen_and_predicted(model.eval(), obs, action)]
    return np.stack([obs["visual"][:, -1].cpu().numpy(), *decoded])


@torch.no_grad()
def _encode(model: WorldModel, obs: Obs) -> Float[Tensor, "B T N D"]:
    """Visual latents."""
    with autocast(obs["visual"].device):
        return model.split(model.encode(obs))[0].float()


@torch.no_grad()
def _seen_and_predicted(model: WorldModel, obs: Obs, action: Tensor) -> tuple[Tensor, Tensor]:
    """Visual latents (B T-1 N D) of all frames but the first, and what the model predicts for them one step ahead."""
    with autocast(action.device):
        z = model.encode(obs)
        predicted = model.predict(z[:, :-1], model.normalizer.normalize_action(action)[:, :-1])
    return model.split(z[:, 1:])[0].float(), model.split(predicted)[0].float()


def _next_loss(model: WorldModel, decoder: nn.Module, train: Windows, index: ndarray) -> DecoderLoss:
    obs, _ = train.get(index, next(model.parameters()).device)
    return _loss(decoder, _encode(model, obs), obs)


def _loss(decoder: nn.Module, visual: Float[Tensor, "B T N D"], obs: Obs) -> DecoderLoss:
    target = frames_to_pixels(obs["visual"].flatten(0, 1))
    with autocast(visual.device):
        return decoder_loss(decoder, visual.flatten(0, 1), target)


def _trial_step(model: WorldModel, decoder: nn.Module, train: Windows, batch_size: int) -> float:
    """Seconds of a step, measured in evaluation mode, where it leaves no trace."""
    decoder.eval()
    seconds = 0.0
    for _ in range(2):  # the first one warms up
        began = time.perf_counter()
        loss = _next_loss(model, decoder, train, next(train.batches(batch_size, seed=0))).total
        loss.backward()
        loss.item()
        seconds = time.perf_counter() - began
    for parameter in decoder.parameters():
        parameter.grad = None
    return seconds
