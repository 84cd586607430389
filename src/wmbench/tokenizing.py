"""Training a tokenizer: its head and a decoder learn together to draw a frame from the frame's tokens."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor, nn

from wmbench.data.windows import Windows
from wmbench.encoders.tokenizer import Tokenizer
from wmbench.models.decoder import decode_frames, frames_to_pixels
from wmbench.store import load_resume, save_resume
from wmbench.training import Recipe, autocast, run_steps

METRICS = "metrics.csv"


class TokenizerLoss(NamedTuple):
    reconstruction: Float[Tensor, ""]  # mean squared error of pixels in [-1, 1]
    total: Float[Tensor, ""]


def fit_tokenizer(
    tokenizer: Tokenizer,
    decoder: nn.Module,
    train: Windows,
    valid: Windows,
    recipe: Recipe,
    run: Path,
    *,
    seed: int,
    l1_weight: int | float,
    announce: Callable[[float], None],
) -> None:
    """Train to recipe.max_steps, going on from what `run` holds, and leave both in evaluation mode.

    Args:
        tokenizer: built for training.
        train, valid: windows of one frame.
        l1_weight: of the mean absolute error of pixels, beside the mean squared one.
        announce: told the seconds that the remaining steps will take, from a trial step, before the first one.

    Raises:
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after the step in progress is finished and saved.
    """
    trained = nn.ModuleDict({"head": tokenizer.head, "decoder": decoder})
    device = next(trained.parameters()).device
    optimizer = torch.optim.AdamW(
        trained.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=device.type == "cuda"
    )
    step = load_resume(run, trained, optimizer)
    if step < recipe.max_steps:
        announce((recipe.max_steps - step) * _trial_step(tokenizer, decoder, train, recipe.batch_size, l1_weight))
    batches = train.batches(recipe.batch_size, seed, first_step=step)
    trained.train()

    def measure(loss: TokenizerLoss) -> dict[str, float]:
        error = validate_tokenizer(tokenizer, decoder, valid, recipe)
        errors = {"reconstruction": loss.reconstruction.item(), "valid_reconstruction": error, "valid_psnr": psnr(error)}
        return errors | tokenizer.usage()

    run_steps(
        optimizer,
        recipe,
        step,
        loss_of_next=lambda: _loss(tokenizer, decoder, frames(train, next(batches), device), l1_weight),
        measure=measure,
        save=lambda step: None,  # the head is written once, when it is finished
        save_state=lambda step: save_resume(run, step, trained, optimizer),
        metrics=run / METRICS,
        desc="training tokenizer",
        shown="PSNR {valid_psnr:.1f} dB",
    )
    trained.eval()


@torch.no_grad()
def validate_tokenizer(tokenizer: Tokenizer, decoder: nn.Module, valid: Windows, recipe: Recipe) -> float:
    """Mean squared error of pixels in [-1, 1] over the same held-out frames every time, from the tokens that models see."""
    device = next(decoder.parameters()).device
    decoder.eval()
    batches = valid.batches(recipe.batch_size, seed=0)
    errors = []
    for _ in range(recipe.valid_batches):
        visual = frames(valid, next(batches), device)
        tokens = tokenizer.tokens(tokenizer.preprocess(visual))
        with autocast(device):
            pixels, _ = decoder(tokens)
        errors.append(nn.functional.mse_loss(pixels.float(), frames_to_pixels(visual[:, 0])))
    decoder.train()
    return torch.stack(errors).mean().item()


def psnr(error: float) -> float:
    """Peak signal-to-noise ratio [dB] of a mean squared error of pixels in [-1, 1], whose range is 2."""
    return 10 * float(np.log10(4 / error))


@torch.no_grad()
def reconstructions(tokenizer: Tokenizer, decoder: nn.Module, valid: Windows, count: int) -> UInt8[ndarray, "2 n h w 3"]:
    """Evenly spread frames: real, and drawn from their tokens."""
    index = np.unique(np.linspace(0, len(valid) - 1, count).astype(int))
    visual = frames(valid, index, next(decoder.parameters()).device)
    drawn = decode_frames(decoder.eval(), tokenizer.tokens(tokenizer.preprocess(visual)))
    return np.stack([visual[:, 0].cpu().numpy(), drawn])


def frames(windows: Windows, index: ndarray, device: torch.device) -> UInt8[Tensor, "F 1 h w 3"]:
    return windows.get(index, device)[0]["visual"]


def _loss(
    tokenizer: Tokenizer, decoder: nn.Module, visual: UInt8[Tensor, "F 1 h w 3"], l1_weight: int | float
) -> TokenizerLoss:
    target = frames_to_pixels(visual[:, 0])
    tokens, penalty = tokenizer.sample(tokenizer.preprocess(visual))  # in full precision, as a world model gets them
    with autocast(visual.device):
        pixels, _ = decoder(tokens)
    reconstruction = nn.functional.mse_loss(pixels.float(), target)
    return TokenizerLoss(
        reconstruction, reconstruction + l1_weight * nn.functional.l1_loss(pixels.float(), target) + penalty.float()
    )


def _trial_step(tokenizer: Tokenizer, decoder: nn.Module, train: Windows, batch_size: int, l1_weight: int | float) -> float:
    """Seconds of a step, measured in evaluation mode and with a random state of its own, so that it leaves no trace."""
    tokenizer.head.eval()
    decoder.eval()
    device = next(decoder.parameters()).device
    seconds = 0.0
    with torch.random.fork_rng():
        for _ in range(2):  # the first one warms up
            began = time.perf_counter()
            visual = frames(train, next(train.batches(batch_size, seed=0)), device)
            loss = _loss(tokenizer, decoder, visual, l1_weight).total
            loss.backward()
            loss.item()
            seconds = time.perf_counter() - began
    for parameter in (*tokenizer.head.parameters(), *decoder.parameters()):
        parameter.grad = None
    return seconds
