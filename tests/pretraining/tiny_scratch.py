"""Objectives of conf/pretraining at tiny size, around a tiny encoder of 8-pixel frames."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from in_process import compose
from omegaconf import OmegaConf

from wmbench.commands import CONF
from wmbench.encoders.scratch import ConvTrunk, Scratch, ViTTrunk
from wmbench.runs.build import build_pretraining

NAMES = sorted(path.stem for path in Path(CONF, "pretraining").glob("*.yaml") if path.stem != "none")
LEARNED = [name for name in NAMES if name != "random"]
TRUNKS = {"conv": partial(ConvTrunk, widths=[6]), "vit": partial(ViTTrunk, patch=4, width=12, depth=1, num_heads=2)}
SMALLER = {  # settings that are as large as a real network's, or do not fit episodes of 12 steps
    "num_codes": 9,
    "patch": 2,
    "num_prototypes": 7,
    "hidden_dim": 8,
    "embed_dim": 5,
    "far": 2,
    "frameskip": 3,
    "depth": 1,
    "num_heads": 1,
}
DECODER = "decoder.channel=6 decoder.num_res_blocks=1 decoder.res_channel=4"


def tiny_encoder(trunk: str = "conv", output: str = "patches", **given: Any) -> Scratch:
    """2 x 2 tokens of 5 features, for training unless there are weights."""
    settings = {"pretrained": True, "weights": None, "seed": 0, "for_training": "weights" not in given} | given
    return Scratch(TRUNKS[trunk], image_size=8, output=output, embed_dim=5, **settings)


def tiny_objective(name: str, encoder: Scratch | None = None, **changed: Any) -> Any:
    cfg = compose("pretrain", f"encoder=scratch pretraining={name} {DECODER}")
    config: Any = OmegaConf.to_container(cfg.pretraining)
    for key in config.keys() & SMALLER:
        config[key] = SMALLER[key]
    if "regularizer" in config:
        config["regularizer"]["num_directions"] = 6
    torch.manual_seed(0)
    return build_pretraining(config | changed, encoder or tiny_encoder(), cfg.decoder)
