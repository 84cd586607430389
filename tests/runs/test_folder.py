"""What a run's folder says about how it came about."""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from wmbench.data.normalizer import Normalizer
from wmbench.encoders.random_patch import RandomPatch
from wmbench.models.vit import FrameCausalViT
from wmbench.models.world_model import WorldModel
from wmbench.runs.folder import check_same, open_run


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


LONG = {"max_steps": 40, "batch_size": 4, "lr": 0.1, "weight_decay": 0.0, "warmup_fraction": 0.1, "cosine": False}
LONG |= {"grad_clip": None, "save_every": 10, "valid_every": 5, "valid_batches": 1}


def check(done: int = 30, **changed: object) -> None:
    """As a run of 40 steps at a rate that does not fall, of which so many are done, is taken up again."""
    check_same(
        "it is a run with other", {"training": LONG | changed, "seed": 0}, {"training": LONG, "seed": 0}, done, "stop"
    )


def test_a_run_may_go_on_longer_where_no_step_done_would_have_had_another_rate():
    check(max_steps=80, warmup_fraction=0.05)  # four steps of warm-up, as before
    check(max_steps=30, warmup_fraction=4 / 30)
    check(save_every=7, valid_every=3, valid_batches=2)
    for changed in ({"max_steps": 80}, {"max_steps": 29, "warmup_fraction": 4 / 29}, {"warmup_fraction": 0.2}):
        with pytest.raises(ValueError, match=r"30 steps are done.*training\.cosine=false with the same 4 steps .*; stop"):
            check(**changed)


def test_a_run_whose_rate_falls_keeps_its_length():
    falling = {"training": LONG | {"cosine": True}}
    with pytest.raises(ValueError, match=r"with other training\.max_steps \(0 steps are done; .*; stop"):
        check_same("it is a run with other", {"training": falling["training"] | {"max_steps": 80}}, falling, 0, "stop")


@pytest.mark.parametrize("changed", [{"lr": 0.2}, {"batch_size": 5}, {"max_steps": 80, "grad_clip": 1.0}])
def test_what_a_run_is_may_not_change(changed: dict):
    with pytest.raises(ValueError, match=r"it is a run with other .*; stop"):
        check(**changed)
