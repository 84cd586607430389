"""What a run's folder says about how it came about."""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from omegaconf import OmegaConf

from wmbench.data.normalizer import Normalizer
from wmbench.encoders.random_patch import RandomPatch
from wmbench.models.vit import FrameCausalViT
from wmbench.models.world_model import WorldModel
from wmbench.runs import open_run


def test_a_run_records_the_licence_of_its_encoders_weights_and_the_libraries_that_built_it(
    tmp_path: Path, numbered_episodes: Callable
):
    encoder = RandomPatch(image_size=6, grid=3, embed_dim=5, seed=0)
    encoder.licence = "for research alone"
    normalizer = Normalizer(*(torch.ones(size) for size in (2, 2, 4, 4)))
    predictor = FrameCausalViT(5, 9, 1, 4, 3, depth=1, num_heads=2, head_dim=6, mlp_dim=11, dropout=0.0)
    model = WorldModel(encoder, predictor, normalizer, proprio="none", proprio_embed_dim=1, frameskip=2, num_hist=1)
    cfg = OmegaConf.create({"ckpt_base_path": str(tmp_path), "model_name": "tiny"})
    provenance = json.loads((open_run(cfg, model, numbered_episodes()) / "provenance.json").read_text())
    assert provenance["encoder"]["licence"] == "for research alone"
    for name in ("wmbench", "torch", "timm", "transformers", "mujoco"):
        assert provenance["versions"][name] == version(name)
