"""DINO-WM's world model and its CEM, recorded with random weights, are reproduced."""

from pathlib import Path

import hydra
import pytest
import torch

from wmbench.data.normalizer import Normalizer
from wmbench.importers.golden import recompute, recompute_cem, relative_error
from wmbench.runs.build import build_world_model

CONF = Path(__file__).parents[2] / "conf"
WORLD_MODEL = {
    *("z", "predict.T1", "predict.T2", "predict.T3", "decoded", "rollout_1", "rollout_2"),
    *("loss.z_loss", "loss.z_visual_loss", "loss.z_proprio_loss", "loss.loss"),
    *("loss.decoder_recon_loss_pred", "loss.decoder_vq_loss_pred", "loss.decoder_loss_pred"),
    *("loss.decoder_recon_loss_reconstructed", "loss.decoder_vq_loss_reconstructed", "loss.decoder_loss_reconstructed"),
    *("cost.last_a0", "cost.last_a0.5", "cost.all_a0", "cost.all_a0.5"),
}


def test_everything_recorded_of_the_world_model_is_the_same(golden: Path):
    record = torch.load(golden / "world_model_tiny.pt", weights_only=True)
    errors = {name: relative_error(ours, recorded) for name, ours, recorded, _ in recompute(record)}
    assert errors.keys() == WORLD_MODEL
    assert max(errors.values()) < 1e-5, errors


def test_cem_is_at_the_same_mean_std_and_best_cost_after_every_iteration(golden: Path):
    record = torch.load(golden / "world_model_tiny.pt", weights_only=True)
    trace = torch.load(golden / "cem_trace_tiny.pt", weights_only=True)
    errors = {name: relative_error(ours, recorded) for name, ours, recorded, _ in recompute_cem(trace, record)}
    assert errors.keys() == {"mean", "std", "best_cost"}
    assert max(errors["mean"], errors["std"]) < 1e-4 and errors["best_cost"] < 1e-5, errors


@pytest.mark.parametrize(
    ("grid", "embed_dim", "concat_dim", "parameters"),
    [(14, 384, 1, 20_122_600), (14, 384, 0, 19_129_344), (1, 512, 1, 26_182_964), (1, 384, 1, 19_886_260)],
    ids=["196 tokens", "196 tokens and two more", "one token", "one narrow token"],
)
def test_a_model_built_with_proprio_has_as_many_parameters(grid: int, embed_dim: int, concat_dim: int, parameters: int):
    sizes = [f"encoder.grid={grid}", f"encoder.embed_dim={embed_dim}", "encoder.image_size=28", f"concat_dim={concat_dim}"]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("train", overrides=["encoder=random_patch", "proprio=full", *sizes])
    model = build_world_model(cfg, Normalizer(torch.zeros(2), torch.ones(2), torch.zeros(4), torch.ones(4)))
    transformer = {name: p for name, p in model.predictor.named_parameters() if not name.startswith("action_encoder.")}
    assert sum(p.numel() for p in transformer.values()) == parameters
