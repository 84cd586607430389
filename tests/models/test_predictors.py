"""Every predictor of conf/predictor, and one that is no window, held to what a predictor promises."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from situations import ACTION, DIM, HORIZON, NUM_HIST, TOKENS, model_around, situation
from tiny_predictor import TinyRecurrent
from torch import Tensor, nn

from wmbench.data.normalizer import Normalizer
from wmbench.encoders.random_patch import RandomPatch
from wmbench.models.base import Predictor
from wmbench.models.precision import set_precision
from wmbench.models.world_model import WorldModel

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "conf" / "predictor").glob("*.yaml"))
SMALL = {"depth": 2, "num_heads": 2, "head_dim": 6, "mlp_dim": 11, "projector_dim": 13, "concat_dim": 1}
SMALL |= {"hidden_dim": 12, "forecast": 2, "group": 4, "num_codes": 13, "channels": 3, "width": 10}
FILTERED = ("rssm", "rssm_v3")  # these see real frames otherwise than foreseen ones


def of_file(path: Path) -> Predictor:
    cfg = OmegaConf.load(path)
    if "defaults" in cfg:
        cfg = OmegaConf.merge(OmegaConf.load(path.with_name(f"{cfg.pop('defaults')[0]}.yaml")), cfg)
    cfg = cfg.get("predictor", cfg)  # of a file that also says how long a window is
    cfg = OmegaConf.merge(cfg, {name: value for name, value in SMALL.items() if name in cfg})
    return instantiate(cfg, dim=DIM, num_tokens=TOKENS, num_hist=NUM_HIST, action_dim=ACTION)


@pytest.fixture(params=[*FILES, None], ids=[*(path.stem for path in FILES), "tiny"])
def predictor(request: pytest.FixtureRequest) -> Predictor:
    torch.manual_seed(0)
    predictor = of_file(request.param) if request.param else TinyRecurrent(DIM, TOKENS, NUM_HIST, ACTION, hidden_dim=11)
    for module in predictor.modules():
        if isinstance(module, nn.Linear) and not module.weight.any():
            nn.init.normal_(module.weight)  # gates that are shut at first
    return predictor.eval().requires_grad_(False)


def rollout(predictor: Predictor, z: Tensor, past: Tensor, plans: Tensor) -> Tensor:
    return model_around(predictor).rollout(z, past, plans)


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_as_long_as_the_window_grows_a_rollout_is_what_training_teaches(
    predictor: Predictor, frames: int, request: pytest.FixtureRequest
):
    z, past, plans = situation(frames)
    is_filtered = getattr(request.node.callspec.params["predictor"], "stem", "") in FILTERED
    found = rollout(predictor, z, past, plans)
    for task, plan in ((0, 0), (1, 3)):
        seen, blocks = z[task, None], torch.cat([past[task], plans[task, plan]])[None]
        for step in range(1 if is_filtered else NUM_HIST - frames + 1):
            predicted = predictor(seen, blocks[:, : frames + step])[:, -1:]
            torch.testing.assert_close(found[task, plan, step], predicted[0, 0], rtol=1e-4, atol=1e-5)
            seen = torch.cat([seen, predicted], dim=1)


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_a_task_and_a_plan_alone_are_what_they_are_among_others(predictor: Predictor, frames: int):
    z, past, plans = situation(frames)
    together = rollout(predictor, z, past, plans)
    for tasks, which in ((slice(1, 2), slice(0, 5)), (slice(0, 2), slice(3, 4)), (slice(0, 1), slice(1, 3))):
        alone = rollout(predictor, z[tasks], past[tasks], plans[tasks, which])
        torch.testing.assert_close(alone, together[tasks, which], rtol=1e-4, atol=1e-5)


def test_a_shorter_plan_is_the_beginning_of_a_longer_one(predictor: Predictor):
    z, past, plans = situation(2)
    found = rollout(predictor, z, past, plans[:, :, :4])
    torch.testing.assert_close(found, rollout(predictor, z, past, plans)[:, :, :4])


def test_every_block_of_a_plan_is_felt_from_its_own_frame_on(predictor: Predictor):
    z, past, plans = situation(2)
    plans = plans[:1, :1].requires_grad_()
    latents = rollout(predictor, z[:1], past[:1], plans)[0, 0]
    for step in range(HORIZON):
        (gradient,) = torch.autograd.grad(latents[step].square().sum(), plans, retain_graph=True)
        felt = gradient[0, 0].abs().sum(-1) > 0
        assert felt[max(0, step - NUM_HIST + 1) : step + 1].all() and not felt[step + 1 :].any()


def test_its_loss_is_the_mean_square_unless_it_brings_its_own(predictor: Predictor):
    z, past, _ = situation(4)
    losses = predictor.loss(z[:, :3], past, z[:, 1:])
    if type(predictor).loss is not Predictor.loss:
        assert "prediction" in losses.parts and losses.total.isfinite()
        return
    torch.testing.assert_close(losses.total, (predictor(z[:, :3], past) - z[:, 1:]).square().mean())
    assert losses.parts == {"prediction": losses.total}


def test_in_bf16_it_rolls_out_nearly_the_same_in_fp32_numbers(predictor: Predictor):
    situated = situation(3)
    exact = rollout(predictor, *situated)
    blank = Normalizer(torch.zeros(3), torch.ones(3), torch.zeros(4), torch.ones(4))
    sizes = {"proprio": "none", "proprio_embed_dim": 1, "frameskip": 3, "num_hist": NUM_HIST}
    model = WorldModel(RandomPatch(8, 2, DIM, 0), predictor, blank, **sizes)
    set_precision(model, "bf16", compiled=False)
    found = model.rollout(*situated)
    assert found.dtype == torch.float32
    assert 1e-5 < ((found - exact).norm() / exact.norm()).item() < 0.05


def test_a_predictor_is_one_file_and_one_yaml(tmp_path: Path, numbered_episodes: Callable):
    """A recurrent one, trained and planned with by the commands, in a copy of the project that has these two more."""
    for name in ("src", "conf", "train.py", "plan.py", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    shutil.copy(Path(__file__).with_name("tiny_predictor.py"), tmp_path / "src" / "wmbench" / "models")
    shutil.copy(Path(__file__).with_name("tiny.yaml"), tmp_path / "conf" / "predictor")
    data = numbered_episodes(num_episodes=10, length=20).path
    train = f"train.py encoder=state predictor=tiny env.data={data} frameskip=3 device=cpu training.max_steps=2"
    plan = "plan.py model_name=point_maze_state_native_s0 baselines=false num_videos=0 protocol.num_tasks=2"
    plan += " planner.num_iters=2 protocol.max_steps=12"
    for command in (f"{train} training.batch_size=4 training.valid_batches=1", plan, f"{plan} planner=gd precision=bf16"):
        done = subprocess.run(
            [sys.executable, *command.split()],
            cwd=tmp_path,
            env={"PYTHONPATH": str(tmp_path / "src"), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    summaries = [json.loads(path.read_text()) for path in (tmp_path / "plan_outputs").glob("*/summary.json")]
    assert {summary["n_tasks"] for summary in summaries} == {2}
