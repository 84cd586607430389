"""Train a world model on recorded episodes: python train.py env=point_maze encoder=lewm_small

Common options: env.data=PATH.h5, seed=1, training.max_steps=600, model_name=NAME, -m encoder=a,b seed=0,1. Stopped at any
point, the same command goes on. The run lands in checkpoints/outputs/<model_name>. decoder=vqvae (transposed_conv where a
frame is one token) then trains a decoder, which draws what the model imagines; for a finished run it trains that alone.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from wmbench import runs
from wmbench.arms import arm_of
from wmbench.caching import Cache, choose_source, source_facts
from wmbench.checkpoint import build_decoder, build_world_model
from wmbench.commands import command, plan_line
from wmbench.data.facts import complete
from wmbench.data.normalizer import fit_normalizer
from wmbench.data.official import open_episodes
from wmbench.data.windows import Windows, split_windows
from wmbench.decoding import fit_decoder, samples
from wmbench.encoders.base import Encoder
from wmbench.encoders.matched import Matched
from wmbench.evaluation.diagnostics import fit_probe
from wmbench.evaluation.figures import decoder_figure
from wmbench.machine import duration, optional, peak_memory, pick_device, size
from wmbench.models.world_model import WorldModel
from wmbench.store import load_resume
from wmbench.training import Recipe, fit, optimizer_of


@command("train")
def main(cfg: DictConfig) -> None:
    device = pick_device(cfg.device)
    compiled = is_compiled(cfg.compile, device)
    runs.wandb_mode(cfg.wandb)  # a wrong word is refused before anything is loaded
    cfg.arm = arm_of(cfg)
    recipe, cache = Recipe.of(cfg.training, cfg.encoder_lr if cfg.train_encoder else None), Cache(**cfg.cache)
    episodes = open_episodes(cfg.env.data)
    for note in complete(episodes, **OmegaConf.to_container(cfg.env, resolve=True)):  # type: ignore[arg-type]
        print(f"note: {note}", file=sys.stderr)
    split = (cfg.train_fraction, cfg.split_seed)
    train, valid = split_windows(episodes, cfg.num_hist + cfg.num_pred, cfg.frameskip, *split)

    torch.manual_seed(cfg.seed)
    model = build_world_model(cfg, fit_normalizer(episodes)).to(device)
    train, valid = train.looking_back(model.lookback), valid.looking_back(model.lookback)
    decoder = new_decoder(cfg, model.encoder, episodes.image_size).to(device) if cfg.decoder else None
    run = runs.open_run(cfg, model, episodes)
    if cfg.decoder:
        runs.open_decoder(run, cfg.decoder)
    done = load_resume(run, model, optimizer_of(model, recipe))
    num_frames = max(0, recipe.max_steps - done) * recipe.batch_size * train.num_frames
    source = choose_source(model, episodes, cache, num_frames, device)
    if done < recipe.max_steps:
        runs.note_source(run, done, source_facts(source, device, model.encoder.frozen))
    shown_train, shown_valid = train.showing(source), valid.showing(source)
    if isinstance(model.encoder, Matched) and model.encoder.std is not None:
        if not done:
            model.encoder.fit(shown_train, model.normalizer)
        print(f"features are divided by their standard deviation, {model.encoder.std.median():.3g} in the median")

    announce = forecast(
        f"{run}: {len(train):,} windows of {len(train.which)} episodes", model, recipe.max_steps // recipe.save_every + 4
    )
    with runs.wandb_log(cfg.wandb, cfg.model_name, OmegaConf.to_container(cfg, resolve=True)) as log:
        options = {"seed": cfg.seed, "announce": announce, "log": log, "compiled": compiled}
        fit(model, shown_train, shown_valid, recipe, run, **options)
    probe = fit_probe(model.eval(), shown_train, shown_valid)
    probe.save(run)
    print(f"the ball's position can be read linearly from a frame's latent with R2 {probe.r2:.4f}")
    if decoder is not None:
        frames = Windows(episodes, train.which, 1, cfg.frameskip).looking_back(model.lookback)
        train_decoder(cfg, model, decoder, frames, valid, run)
    print(f"trained: {run}\nnext: {plan_line(run, Path(cfg.ckpt_base_path))}")


def is_compiled(choice: str | bool, device: torch.device) -> bool:
    if choice not in ("auto", True, False):
        raise ValueError(f"compile ({choice!r}) must be auto, true or false")
    return device.type == "cuda" if choice == "auto" else bool(choice)


def new_decoder(cfg: DictConfig, encoder: Encoder, image_size: int) -> nn.Module:
    """Drawn from a random state of its own, so that the world model's training is the same with it and without."""
    Recipe.of(cfg.decoder.training)  # a bad one is refused now rather than after the world model's training
    with torch.random.fork_rng():
        torch.manual_seed(cfg.seed)
        return build_decoder(cfg.decoder, encoder.embed_dim, encoder.grid, image_size)


def train_decoder(
    cfg: DictConfig, model: WorldModel, decoder: nn.Module, frames: Windows, valid: Windows, run: Path
) -> None:
    """The second phase: the world model is finished and stays as it is."""
    recipe = Recipe.of(cfg.decoder.training)
    announce = forecast(f"{run}: a decoder on {len(frames):,} frames", decoder, 4)
    with runs.wandb_log(cfg.wandb, f"{cfg.model_name}_decoder", OmegaConf.to_container(cfg, resolve=True)) as log:
        fit_decoder(model, decoder, cfg.decoder, frames, valid, recipe, run, seed=cfg.seed, announce=announce, log=log)
    picture = run / "decoder.png"
    optional(picture.name, lambda: decoder_figure(picture, samples(model, decoder, valid, count=6)))
    if picture.exists():
        print(f"what it draws: {picture}")


def forecast(what: str, module: nn.Module, copies: int) -> Callable[[float], None]:
    """Prints the cost of a training that leaves so many copies of its weights on disk, once told its seconds."""

    def announce(seconds: float) -> None:
        trained = [p for p in module.parameters() if p.requires_grad]
        number, device = sum(p.numel() for p in trained), trained[0].device
        print(
            f"{what}, {number / 1e6:.1f} M trained parameters\n"
            f"will take about {duration(seconds)} on {device}, {size(4 * number * copies)} of disk, "
            f"{size(peak_memory(device))} of memory"
        )

    return announce


if __name__ == "__main__":
    main()
