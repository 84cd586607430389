"""Train a tokenizer's head on recorded frames: python scripts/train_tokenizer.py encoder=dino_tok env.data=PATH.h5

Common options: encoder=vfm_vae_pointmaze, training.max_steps=1000, encoder.pretrained=false (over an untrained backbone).
Stopped at any point, the same command goes on. The head lands where train.py encoder=dino_tok looks for it; the folder
beside it, of the same name, holds metrics.csv and reconstructions.png (real frames above, drawn ones below).
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from einops import rearrange
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import nn

from wmbench.checkpoint import build_decoder
from wmbench.commands import command, command_line
from wmbench.data.episodes import EpisodeSet
from wmbench.data.normalizer import fit_normalizer
from wmbench.data.official import open_episodes
from wmbench.data.windows import Windows, split_windows
from wmbench.encoders.base import weights_hash
from wmbench.encoders.tokenizer import Tokenizer
from wmbench.encoders.weights import file_hash
from wmbench.evaluation.diagnostics import fit_probe
from wmbench.machine import duration, peak_memory, pick_device, size
from wmbench.models.world_model import WorldModel
from wmbench.provenance import git_commit, versions
from wmbench.tokenizing import METRICS, fit_tokenizer, reconstructions
from wmbench.training import Recipe

PROBED, SHOWN = 1000, 6  # frames


@command("tokenizer")
def main(cfg: DictConfig) -> None:
    device = pick_device(cfg.device)
    recipe = Recipe(**cfg.training)
    episodes = open_episodes(cfg.env.data)
    train, valid = split_windows(episodes, 1, episodes.store_every, cfg.train_fraction, cfg.split_seed)
    torch.manual_seed(cfg.seed)
    tokenizer = new_tokenizer(cfg).to(device)
    decoder = build_decoder(cfg.decoder, tokenizer.embed_dim, tokenizer.grid, episodes.image_size).to(device)
    output = Path(cfg.output).expanduser()
    if output.suffix != ".safetensors":
        raise ValueError(f"output ({output}) must end in .safetensors")
    run = output.with_suffix("")
    provenance = open_folder(run, cfg, tokenizer, episodes)

    announce = forecast(f"{run}: {len(train):,} frames, {tokenizer.source}", nn.ModuleList([tokenizer.head, decoder]))
    options = {"seed": cfg.seed, "l1_weight": cfg.l1_weight, "announce": announce}
    fit_tokenizer(tokenizer, decoder, train, valid, recipe, run, **options)

    rows = rearrange(reconstructions(tokenizer, decoder, valid, SHOWN), "rows n h w c -> (rows h) (n w) c")
    Image.fromarray(rows).save(run / "reconstructions.png")
    results = pd.read_csv(run / METRICS).iloc[-1][["valid_reconstruction", "valid_psnr"]].to_dict()
    results |= tokenizer.usage()
    results["ball_position_r2"] = ball_position_r2(tokenizer, episodes, train, valid)
    tokenizer.save_head(output, provenance | results)
    print(
        f"held-out frames: mean squared error {results['valid_reconstruction']:.5f} (pixels in [-1, 1]), "
        f"PSNR {results['valid_psnr']:.2f} dB; the ball's position can be read linearly with R2 "
        f"{results['ball_position_r2']:.4f}\nwhat it draws: {run / 'reconstructions.png'}\n"
        f"trained: {output}, SHA-256 {file_hash(output)}\nnext: {next_command(cfg)}"
    )


def new_tokenizer(cfg: DictConfig) -> Tokenizer:
    """With a head to train.

    Raises:
        ValueError: an encoder that is no tokenizer.
    """
    if not issubclass(get_class(cfg.encoder._target_), Tokenizer):
        raise ValueError(
            f"{cfg.encoder._target_} has no head to train: encoder= dino_tok, dino_tok_s, dino_tok_vq or vfm_vae_pointmaze"
        )
    return instantiate(cfg.encoder, for_training=True)


def open_folder(run: Path, cfg: DictConfig, tokenizer: Tokenizer, episodes: EpisodeSet) -> dict[str, Any]:
    """Begin a training's folder, or go on with the same one; returns what its provenance.json says.

    Raises:
        ValueError: the folder holds a training of another configuration, on other data or over another backbone.
    """
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    known = {
        "config": {name: value for name, value in config.items() if name not in ("device", "output")},
        "data_hash": episodes.hash,
        "backbone": tokenizer.backbone.source,
        "backbone_hash": weights_hash(tokenizer.backbone),
    }
    path = run / "provenance.json"
    if path.exists():
        provenance = json.loads(path.read_text())
        before, now = (flat({name: node[name] for name in known}) for node in (provenance, known))
        if names := sorted({name.removeprefix("config.") for name, _ in before.items() ^ now.items()}):
            raise ValueError(f"{run} holds a training with another {', '.join(names)}; delete it or give another output=")
        return provenance
    run.mkdir(parents=True, exist_ok=True)
    provenance = known | {
        "source": tokenizer.source,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git_commit(),
        "versions": versions(("wmbench", "torch", "timm")),
    }
    path.write_text(json.dumps(provenance, indent=2) + "\n")
    return provenance


def next_command(cfg: DictConfig) -> str:
    """What trains a world model on this tokenizer."""
    settings = {"encoder": HydraConfig.get().runtime.choices["encoder"], "env.data": cfg.env.data}
    if not cfg.encoder.pretrained or cfg.output != cfg.encoder.file:
        settings |= {"encoder.pretrained": str(cfg.encoder.pretrained).lower(), "encoder.weights": cfg.output}
    return command_line("train.py", settings)


def flat(node: dict[str, Any]) -> dict[str, str]:
    """Nested settings as dotted names and printed values."""
    return pd.json_normalize(node).iloc[0].astype(str).to_dict()


def forecast(what: str, trained: nn.Module) -> Callable[[float], None]:
    """Prints the cost of a training, once told its seconds. Its folder holds weights, two copies for Adam, and buffers."""

    def announce(seconds: float) -> None:
        number, device = sum(p.numel() for p in trained.parameters()), next(trained.parameters()).device
        disk = 12 * number + sum(buffer.nbytes for buffer in trained.buffers())
        print(
            f"{what}, {number / 1e6:.1f} M trained parameters\n"
            f"will take about {duration(seconds)} on {device}, {size(disk)} of disk, "
            f"{size(peak_memory(device))} of memory"
        )

    return announce


def ball_position_r2(tokenizer: Tokenizer, episodes: EpisodeSet, train: Windows, valid: Windows) -> float:
    """How well the ball's position can be read linearly from a frame's tokens."""
    looks = WorldModel(
        tokenizer, None, fit_normalizer(episodes), proprio="none", proprio_embed_dim=0, frameskip=1, num_hist=1
    )
    return fit_probe(looks.to(next(tokenizer.parameters()).device).eval(), train, valid, PROBED).r2


if __name__ == "__main__":
    main()
