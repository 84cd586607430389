"""What train.py and pretrain.py train, and where, from their configurations."""

from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from wmbench.commands.wandb_log import wandb_log, wandb_mode
from wmbench.data.windows import FrameNumbers, StoredFrames, Windows
from wmbench.encoders.base import Encoder
from wmbench.encoders.matched import Matched
from wmbench.encoders.weights import drawn_from
from wmbench.machine import optional
from wmbench.models.world_model import WorldModel
from wmbench.processes.group import is_first
from wmbench.processes.meeting import agree, by_first, first_before_others
from wmbench.reports.figures import draw_decoder
from wmbench.runs.build import build_decoder
from wmbench.runs.find import step_path
from wmbench.runs.folder import PARTS, note_source
from wmbench.runs.load import save_weights
from wmbench.runs.recipe import Recipe
from wmbench.runs.store import load_resume, steps_done
from wmbench.training import loop
from wmbench.training.cost import RandomTokens, evening, forecast, seconds_of
from wmbench.training.decoder import DecoderTrainee, draw_samples
from wmbench.training.part import Part
from wmbench.training.source import Cache, choose_source, is_worth_keeping, make_encode, source_facts
from wmbench.training.trainee import Trainee
from wmbench.training.world_model import WorldModelTrainee, compile_predictor, optimizer_of

PROBED = 1000  # frames
MANY_STEPS = 1000  # of a training whose time is told before its frames are encoded


def learn(trainee: Trainee, run: Path, what: str, cfg: DictConfig, name: str = "") -> None:
    """Train to the end, and print before the first step what that takes.

    Args:
        what: the forecast's beginning.
        name: of the log in wandb.
    """
    count, recipe = len(trainee.windows), trainee.recipe
    if recipe.batch_size > count:
        print(f"note: {recipe.where}.batch_size ({recipe.batch_size}) is more than there is: every step takes all {count}")
    agree("the data's hash", trainee.windows.episodes.hash, "all machines need the same data")
    done = steps_done(run, trainee.resume)
    with wandb_log(cfg.get("wandb", "disabled"), name, OmegaConf.to_container(cfg, resolve=True)) as log:
        loop.train(trainee, run, announce=lambda seconds: print(forecast(what, trainee, done, seconds)), log=log)


def tell_of_evening(trial: WorldModelTrainee, done: int) -> None:
    """Print what a long training on tokens will take, and what an evening is enough for, before any frame is encoded."""
    windows, encode = trial.windows, make_encode(trial.model, trial.device)
    obs = windows.showing(StoredFrames(windows.episodes)).get(np.arange(1)).obs
    frame_s = seconds_of(lambda: encode(obs)) / obs["visual"].shape[1]
    frames, step_s = len(FrameNumbers(windows.episodes)), loop.measure_step(trial, finite=False)
    if told := evening(trial.recipe.max_steps - done, step_s, frames, frame_s):
        print(f"note: {told}")


def world_model_trainee(
    cfg: DictConfig, model: WorldModel, train: Windows, valid: Windows, recipe: Recipe, run: Path
) -> WorldModelTrainee:
    """Build a model and what it looks at: frames, or their tokens from the cache; matched tokens are measured once."""
    device, episodes = next(model.parameters()).device, train.episodes
    done = first_before_others(lambda: load_resume(run, model, optimizer_of(model, recipe)))
    if done >= recipe.max_steps and not step_path(run, done).exists():  # somebody deleted it, since it was damaged
        by_first(lambda: save_weights(run, done, model))
    if recipe.max_steps - done >= MANY_STEPS and is_worth_keeping(model.encoder):
        tell_of_evening(WorldModelTrainee(model, train.showing(RandomTokens(model.encoder)), valid, recipe, cfg.seed), done)
    num_frames = max(0, recipe.max_steps - done) * recipe.batch_size * train.num_frames
    source = choose_source(model, episodes, Cache(**cfg.cache), num_frames, device)
    if done < recipe.max_steps:
        by_first(lambda: note_source(run, done, source_facts(source, device, model.encoder.frozen)))
    train, valid = train.showing(source), valid.showing(source)
    if isinstance(model.encoder, Matched) and model.encoder.std is not None:
        if not done:
            model.encoder.fit(train, model.normalizer)
        print(f"tokens are divided by their standard deviation, {model.encoder.std.median():.3g} in the median")
    trainee = WorldModelTrainee(model, train, valid, recipe, cfg.seed)
    if is_compiled(cfg.compile, device) and done < recipe.max_steps:
        compile_predictor(model, lambda: loop.measure_step(trainee))
    return trainee


def check_words(cfg: DictConfig, device: torch.device) -> None:
    """Refuse what would be found wrong only after the data are loaded or the world model is trained.

    Raises:
        ValueError: a word that there is not, or a recipe of a decoder, distance or policy that cannot be.
    """
    is_compiled(cfg.compile, device)
    wandb_mode(cfg.wandb)
    Cache(**cfg.cache)
    for part in PARTS:
        if cfg[part]:
            Recipe.of(cfg[part].training, where=f"{part}.training")


def is_compiled(choice: str | bool, device: torch.device) -> bool:
    if choice not in ("auto", True, False):
        raise ValueError(f"compile ({choice!r}) must be auto, true or false")
    return device.type == "cuda" if choice == "auto" else bool(choice)


def new_decoder(cfg: DictConfig, encoder: Encoder, image_size: int) -> nn.Module:
    """Draw a decoder from a random state of its own, so that the world model trains the same with it and without."""
    with drawn_from(cfg.seed):
        return build_decoder(cfg.decoder, encoder.embed_dim, encoder.grid, image_size)


def train_decoder(
    cfg: DictConfig, trained: WorldModelTrainee, decoder: nn.Module, frames: Windows, valid: Windows, run: Path
) -> None:
    """Train the decoder of a finished world model, which stays as it is, on what that has learned from."""
    model, source = trained.model, trained.windows.source
    recipe, part = Recipe.of(cfg.decoder.training, where="decoder.training"), Part("decoder", cfg.decoder, decoder)
    tokens = source if source.encoded else None
    trainee = DecoderTrainee(model, part, frames, valid, recipe, cfg.seed, tokens=tokens)
    learn(trainee, run, f"{run}: a decoder on {len(frames):,} frames", cfg, f"{cfg.model_name}_decoder")
    if not is_first():
        return
    picture = run / "decoder.png"
    optional(picture.name, lambda: draw_decoder(picture, draw_samples(model, decoder, valid, count=6)))
    if picture.exists():
        print(f"what it draws: {picture}")
