"""What pretrain.py trains, and where: a tokenizer's head, or an encoder from scratch by an objective of conf/pretraining."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from wmbench.commands.checks import given_words
from wmbench.commands.configuration import choices
from wmbench.commands.quoting import command_line
from wmbench.data.episodes import EpisodeSet
from wmbench.data.normalizer import fit_normalizer
from wmbench.data.windows import Windows, split_windows
from wmbench.diagnostics.probe import fit_probe
from wmbench.encoders.base import Encoder, weights_hash
from wmbench.encoders.scratch import Scratch
from wmbench.encoders.tokenizer import Tokenizer
from wmbench.machine import optional
from wmbench.models.world_model import WorldModel
from wmbench.reports.feature_maps import encode_frames, feature_map, feature_sheet, spread_frames
from wmbench.runs.build import build_decoder, build_pretraining
from wmbench.runs.folder import check_same
from wmbench.runs.provenance import git_commit, versions
from wmbench.runs.recipe import Recipe
from wmbench.runs.store import load_mapping, save_mapping, steps_done
from wmbench.training.pretraining import PretrainingTrainee
from wmbench.training.tokenizer import TokenizerTrainee
from wmbench.training.trainee import EncoderTrainee

PROBED = 1000  # frames
SHOWN = 6  # frames


def new_trainee(cfg: DictConfig, episodes: EpisodeSet, recipe: Recipe, device: torch.device) -> EncoderTrainee:
    """Build what is to be trained.

    Raises:
        ValueError: an encoder that cannot be, or not by the objective that is asked for.
    """
    kind, name = get_class(cfg.encoder._target_), HydraConfig.get().runtime.choices["encoder"]
    objectives = [choice for choice in choices("pretraining") if choice != "none"]
    if issubclass(kind, Scratch):
        if not cfg.pretraining:
            raise ValueError(f"encoder={name} is trained by an objective: add pretraining={'|'.join(objectives)}")
        objective = build_pretraining(cfg.pretraining, instantiate(cfg.encoder, for_training=True), cfg.decoder).to(device)
        frameskip = objective.frameskip or episodes.store_every
        windows = split_windows(episodes, objective.num_frames, frameskip, cfg.train_fraction, cfg.split_seed)
        return PretrainingTrainee(objective, *windows, recipe, cfg.seed)
    if not issubclass(kind, Tokenizer):
        raise ValueError(
            f"{cfg.encoder._target_} has no head to train: encoder= dino_tok, dino_tok_s, dino_tok_vq, "
            "vfm_vae_pointmaze or conv_vae; encoder=scratch or scratch_vit is trained as a whole"
        )
    if cfg.pretraining:
        raise ValueError(f"encoder={name} learns to draw frames; pretraining= is for encoder=scratch, leave it out")
    windows = split_windows(episodes, 1, episodes.store_every, cfg.train_fraction, cfg.split_seed)
    tokenizer = instantiate(cfg.encoder, for_training=True).to(device)
    own = tokenizer.own_decoder(episodes.image_size)
    decoder = own or build_decoder(cfg.decoder, tokenizer.embed_dim, tokenizer.grid, episodes.image_size)
    return TokenizerTrainee(tokenizer, decoder.to(device), *windows, recipe, cfg.seed, cfg.l1_weight)


def output_file(cfg: DictConfig) -> Path:
    """Where the trained weights go; their training's folder is of the same name without the suffix."""
    output = Path(cfg.output).expanduser()
    if output.suffix != ".safetensors":
        raise ValueError(f"output ({output}) must end in .safetensors")
    return output


def open_pretraining(run: Path, cfg: DictConfig, encoder: Encoder, episodes: EpisodeSet) -> dict[str, Any]:
    """Begin a training, or go on with the same one; returns what its provenance.json says.

    Raises:
        ValueError: the folder holds a training of another configuration, on other data or over another backbone.
    """
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    unread = {"device", "output", "deterministic"} | {name for name in ("pretraining",) if not config[name]}
    known: dict[str, Any] = {
        "config": {name: value for name, value in config.items() if name not in unread},
        "data_hash": episodes.hash,
    }
    if isinstance(encoder, Tokenizer):
        known |= {"backbone": encoder.backbone.source, "backbone_hash": weights_hash(encoder.backbone)}
    path, remedy = run / "provenance.json", "delete it or give another output="
    begun = {
        "source": encoder.source,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git_commit(),
        "versions": versions(("wmbench", "torch", "timm")),
    }
    if path.exists():
        begun = load_mapping(path, remedy, tuple(known))
        if not isinstance(begun["config"], dict):
            raise ValueError(f"{path} is damaged (its config is {str(begun['config'])[:40]!r}); {remedy}")
        before, now = ({**node["config"], **{n: node[n] for n in known if n != "config"}} for node in (begun, known))
        check_same(f"{run} holds a training with another", now, before, steps_done(run), remedy, free=())
    provenance = begun | known
    if provenance != begun or not path.exists():
        save_mapping(path, provenance)
    return provenance


def facts(cfg: DictConfig, trainee: EncoderTrainee) -> dict[str, Any]:
    """What trained the weights, and what they are worth on held-out frames."""
    words: dict[str, Any] = {}
    if cfg.pretraining:
        steps = trainee.recipe.max_steps if trainee.learns else 0
        words = {"objective": HydraConfig.get().runtime.choices["pretraining"], "steps": steps}
    r2 = ball_position_r2(trainee.encoder, trainee.windows, trainee.valid)
    return words | trainee.validate() | {"ball_position_r2": r2}


def draw_pictures(trainee: EncoderTrainee, run: Path, name: str) -> list[Path]:
    """Draw frames as the encoder's objective does, and the principal components of its tokens; returns what was drawn."""
    encoder, episodes = trainee.encoder.eval(), trainee.windows.episodes

    def components() -> Image.Image | None:
        if encoder.num_tokens == 1:
            return None  # no map
        frames = spread_frames(episodes, SHOWN)
        return Image.fromarray(feature_sheet(frames, {name: feature_map(encode_frames(encoder, frames), encoder.grid)}))

    def save(draw: Callable[[], Image.Image | None], path: Path) -> None:
        if (picture := draw()) is not None:
            picture.save(path)

    paths = {run / "reconstructions.png": trainee.picture, run / "features.png": components}
    for path, draw in paths.items():
        optional(path.name, partial(save, draw, path))
    return [path for path in paths if path.exists()]


def ball_position_r2(encoder: Encoder, train: Windows, valid: Windows) -> float:
    """R2 of the ball's position, read linearly from a frame's tokens."""
    looks = WorldModel(
        encoder, None, fit_normalizer(train.episodes), proprio="none", proprio_embed_dim=0, frameskip=1, num_hist=1
    )
    return fit_probe(looks.to(encoder.pixel_mean.device).eval(), train, valid, PROBED).r2


def next_command(cfg: DictConfig) -> str:
    """The command that trains a world model on what was trained."""
    settings = {"encoder": HydraConfig.get().runtime.choices["encoder"], "env.data": cfg.env.data}
    if cfg.pretraining:
        words = (word.partition("=") for word in given_words())
        settings |= {key: value for key, _, value in words if key.startswith("encoder.") and key != "encoder.pretrained"}
        settings |= {"encoder.weights": cfg.output}
    elif not cfg.encoder.pretrained or cfg.output != cfg.encoder.file:
        settings |= {"encoder.pretrained": str(cfg.encoder.pretrained).lower(), "encoder.weights": cfg.output}
    return command_line("train.py", settings)
