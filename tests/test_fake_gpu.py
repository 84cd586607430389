"""Training, rollouts and agents keep to their device and their types: shown on a GPU that is not there."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from fake_gpu import GPU, fake_gpu
from torch import Tensor, nn

from wmbench.data.normalizer import Normalizer
from wmbench.data.windows import ResidentFrames, Windows
from wmbench.encoders.lewm import SmallLeWM
from wmbench.encoders.random_patch import RandomPatch
from wmbench.models import sigreg
from wmbench.models.actor_critic import ActorCritic
from wmbench.models.adaln import AdaLNPredictor
from wmbench.models.base import Predictor
from wmbench.models.categorical import CategoricalViT
from wmbench.models.decoder import TransposedConvDecoder, VQVAEDecoder
from wmbench.models.gaussian import GaussianViT
from wmbench.models.gru import GRUPredictor
from wmbench.models.inverse import InverseModel
from wmbench.models.masked import MaskedViT
from wmbench.models.mdn_rnn import MDNRNN
from wmbench.models.precision import Bf16Predictor, precision_named, set_precision
from wmbench.models.projected import Projected
from wmbench.models.quasimetric import Quasimetric
from wmbench.models.rssm import RSSM
from wmbench.models.sigreg import SIGReg
from wmbench.models.straightened import StraightenedViT
from wmbench.models.tdmpc2 import TDMPC2Dynamics
from wmbench.models.vit import FrameCausalViT
from wmbench.models.vit_rope import RotaryViT
from wmbench.models.vjepa2_ac import VJEPA2AC
from wmbench.models.world_model import WorldModel
from wmbench.planning.adam import Adam
from wmbench.planning.agent import Agent
from wmbench.planning.cem import CEM
from wmbench.planning.icem import ICEM
from wmbench.planning.inverse import InverseAgent
from wmbench.planning.mppi import MPPI
from wmbench.planning.noise import KeyedNoise
from wmbench.planning.objective import Objective, TopK
from wmbench.planning.planner import Planner
from wmbench.planning.random_shooting import RandomShooting
from wmbench.runs.recipe import Recipe
from wmbench.shapes import Obs
from wmbench.training.decoder import DecoderTrainee
from wmbench.training.imagination import ImaginationTrainee
from wmbench.training.loop import take_step
from wmbench.training.pairs import PairTrainee, draw_pairs
from wmbench.training.part import Part
from wmbench.training.trainee import Trainee
from wmbench.training.world_model import WorldModelTrainee

DIM, TOKENS, NUM_HIST, FRAMESKIP, SIDE = 5, 4, 2, 3, 8
SHAPE = {"num_tokens": TOKENS, "num_hist": NUM_HIST, "action_dim": 2 * FRAMESKIP}
INSIDE = {"depth": 1, "num_heads": 2, "head_dim": 6, "mlp_dim": 11, "dropout": 0.1}
STEPS = {"max_steps": 9, "batch_size": 2, "save_every": 3, "valid_every": 3, "valid_batches": 1}
RECIPE = Recipe(**STEPS, lr=0.01, weight_decay=0.01, warmup_fraction=0.2, cosine=True, grad_clip=1.0)
RECURRENT: dict[str, Any] = {"hidden_dim": 6, "variables": 3, "min_std": 0.1, "mlp_dim": 8, "free_nats": 0.1}
RECURRENT |= {"dynamics": 0.5, "representation": 0.1}

PREDICTORS: dict[str, Callable[[int], Predictor]] = {
    "vit": lambda dim: FrameCausalViT(dim, action_embed_dim=3, **SHAPE, **INSIDE),
    "vit_token": lambda dim: FrameCausalViT(dim, action_embed_dim=3, concat_dim=0, **SHAPE, **INSIDE),
    "vit_rope": lambda dim: RotaryViT(dim=dim, action_embed_dim=3, **SHAPE, **INSIDE),
    "adaln": lambda dim: AdaLNPredictor(dim, smoothed_dim=3, projector_dim=13, **SHAPE, **INSIDE),
    "projected": lambda dim: Projected(lambda dim: PREDICTORS["vit"](dim), dim, 9),
    "masked": lambda dim: MaskedViT(dim=dim, action_embed_dim=3, masked_share=0.5, **SHAPE, **INSIDE),
    "gaussian": lambda dim: GaussianViT(dim=dim, action_embed_dim=3, mse_weight=0.1, **SHAPE, **INSIDE),
    "categorical": lambda dim: CategoricalViT(dim=dim, action_embed_dim=3, num_codes=7, **SHAPE, **INSIDE),
    "straightened": lambda dim: StraightenedViT(dim, 3, 12, 0.1, action_embed_dim=3, **SHAPE, **INSIDE),
    "vjepa2_ac": lambda dim: VJEPA2AC(
        dim=dim, action_embed_dim=3, concat_dim=0, rope="3d", l1=True, layer_norm=True, rollout_steps=2, **SHAPE, **INSIDE
    ),
    "tdmpc2": lambda dim: TDMPC2Dynamics(dim, mlp_dim=8, group=2, **SHAPE),
    "gru": lambda dim: GRUPredictor(dim=dim, hidden_dim=6, num_layers=2, mlp_dim=8, forecast=2, **SHAPE),
    "mdn_rnn": lambda dim: MDNRNN(dim=dim, hidden_dim=6, components=2, temperature=1.0, **SHAPE),
    "rssm": lambda dim: RSSM(dim=dim, **RECURRENT, classes=None, unimix=0.0, layer_norm=False, **SHAPE),
    "rssm_v3": lambda dim: RSSM(dim=dim, **RECURRENT, classes=4, unimix=0.1, layer_norm=True, **SHAPE),
}
PLANNERS: dict[str, Callable[[], Planner]] = {
    "cem": lambda: CEM(4, 2, 2, 1.0),
    "icem": lambda: ICEM(4, 2, 2, 1.0, 2.0, FRAMESKIP, 1.25, 0.5, 0.1),
    "mppi": lambda: MPPI(4, 2, 1.0, 0.1, 0.9),
    "random_shooting": lambda: RandomShooting(4, 2, 1.0),
    "adam": lambda: Adam(2, 1, 1.0, 0.1),
}


class Straight(Predictor):
    """A predictor of few operations, as each of them takes long without a GPU."""

    def __init__(self, dim: int):
        super().__init__()
        self.layer = nn.Linear(dim + 2 * FRAMESKIP, dim)

    def forward(self, z: Tensor, action: Tensor) -> Tensor:
        return self.layer(torch.cat([z, action[:, :, None].expand(-1, -1, z.shape[2], -1)], 3))

    def begin(self, z: Tensor, past: Tensor, num_plans: int) -> Tensor:
        return z[:, -1:].repeat_interleave(num_plans, 0)

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        new = self(state, action[:, None])
        return new[:, 0], new


def model_of(predictor: str, proprio: str = "none") -> WorldModel:
    width = DIM if proprio == "none" else DIM + 7
    build = PREDICTORS.get(predictor, Straight)
    told = {"proprio": proprio, "proprio_embed_dim": 7, "frameskip": FRAMESKIP, "num_hist": NUM_HIST}
    blank = Normalizer(torch.zeros(2), torch.ones(2), torch.zeros(4), torch.ones(4))
    return WorldModel(RandomPatch(SIDE, 2, DIM, 0), build(width), blank, **told)


def lewm() -> WorldModel:
    blank = Normalizer(torch.zeros(2), torch.ones(2), torch.zeros(4), torch.ones(4))
    told = {"proprio": "none", "proprio_embed_dim": 0, "frameskip": FRAMESKIP, "num_hist": NUM_HIST}
    predictor = AdaLNPredictor(DIM, smoothed_dim=3, projector_dim=13, **SHAPE | {"num_tokens": 1}, **INSIDE)
    return WorldModel(SmallLeWM(SIDE, [3, 4], DIM, 7), predictor, blank, regularizer=SIGReg(5, 0.1), **told)


def situation() -> tuple[Tensor, Tensor, Tensor]:
    """Two tasks' latents of two frames, the block between them, four plans of three blocks."""
    return tuple(
        torch.zeros(*size, device=GPU) for size in ((2, 2, TOKENS, DIM), (2, 1, 2 * FRAMESKIP), (2, 4, 3, 2 * FRAMESKIP))
    )


@pytest.mark.parametrize(
    ("name", "precision"), [*((name, "bf16") for name in PREDICTORS), ("vit", "fp32"), ("adaln", "fp32")]
)
def test_a_rollout_stays_on_the_gpu(name: str, precision: str):
    model = model_of(name).eval()
    with fake_gpu(), torch.no_grad():
        set_precision(model.to(GPU), precision, compiled=False)
        latents = model.rollout(*situation())
    assert (latents.shape, latents.dtype, latents.device) == ((2, 4, 3, TOKENS, DIM), torch.float32, GPU)


@pytest.fixture
def windows(numbered_episodes: Callable) -> Windows:
    return Windows(numbered_episodes(num_episodes=3, length=12), np.array([0, 2]), NUM_HIST + 1, FRAMESKIP)


def step(trainee: Trainee, batch: Any, precision: str) -> None:
    """A step of the loop, which ends with every weight and its state where they were."""
    types = {name: parameter.dtype for name, parameter in trainee.module.named_parameters()}
    with precision_named(precision, GPU).applied():
        health = take_step(trainee.optimizer, trainee.recipe, 1, trainee.forward(batch).total)
    assert health.device == GPU
    for name, parameter in trainee.module.named_parameters():
        assert parameter.device == GPU and parameter.dtype == types[name]
        assert not parameter.requires_grad or (parameter.grad is not None and parameter.grad.device == GPU), name
        assert all(value.device == GPU for value in trainee.optimizer.state[parameter].values())


@pytest.mark.parametrize(
    ("name", "precision"),
    [("vit", "fp32"), ("lewm", "fp32"), ("lewm", "bf16"), *((name, "bf16") for name in PREDICTORS if name != "projected")],
)
def test_a_training_step_stays_on_the_gpu(name: str, precision: str, windows: Windows):
    """Frames come from the disk, or from the GPU's memory for an encoder that learns."""
    with fake_gpu():
        model = (lewm() if name == "lewm" else model_of(name, "velocity")).to(GPU).train()
        shown = windows.showing(ResidentFrames(windows.episodes, GPU)) if name == "lewm" else windows
        step(WorldModelTrainee(model, shown, shown, RECIPE, 0), shown.get(np.arange(2), GPU), precision)


def actor(model: WorldModel) -> ActorCritic:
    return ActorCritic(DIM, TOKENS, 2 * FRAMESKIP, model.predictor.memory_dim, 6, 0.9, 0.9, 0.1)


@pytest.mark.parametrize("name", ["transposed_conv", "vqvae", "distance", "policy", "dream"])
def test_what_is_trained_after_the_model_stays_on_the_gpu(name: str, windows: Windows):
    made: dict[str, Callable[[], nn.Module]] = {
        "transposed_conv": lambda: TransposedConvDecoder(DIM, SIDE),
        "vqvae": lambda: VQVAEDecoder(DIM, (2, 2), 4, 1, 3, 7, True, SIDE),
        "distance": lambda: Quasimetric(DIM, TOKENS, 3, 6, 0.9),
        "policy": lambda: InverseModel(DIM, TOKENS, 2 * FRAMESKIP, 3, 6),
        "dream": lambda: actor(model),
    }
    with fake_gpu():
        model = lewm() if name == "transposed_conv" else model_of("rssm" if name == "dream" else "straight")
        model, part = model.to(GPU), Part("part", {}, made[name]().to(GPU))
        if name == "dream":
            trainee: Trainee = ImaginationTrainee(model, part, windows, windows, RECIPE, 0, 2)
            batch: Any = trainee._draw(windows, np.arange(2), (0, 0))  # type: ignore[attr-defined]
        elif name in ("distance", "policy"):
            trainee = PairTrainee(model, part, windows, windows, RECIPE, 0, horizon=2)
            batch = draw_pairs(windows, np.arange(2), 2, (0, 0), GPU)
        else:
            trainee = DecoderTrainee(model, part, windows, windows, RECIPE, 0)
            batch = trainee.drawing(np.arange(2))
        step(trainee, batch, "bf16")


def seen(num_tasks: int = 2) -> Obs:
    visual = torch.zeros(num_tasks, 1, SIDE, SIDE, 3, dtype=torch.uint8, device=GPU)
    return Obs(visual=visual, proprio=torch.zeros(num_tasks, 1, 4, device=GPU))


def play(agent: Agent) -> None:
    """A decision for two tasks, then one for the first of them."""
    agent._costs.check = lambda: None  # asks for a number, once for a plan
    agent.reset(seen(), 3)
    for tasks in (np.arange(2), np.arange(1)):
        assert agent.act(lambda tasks=tasks: seen(len(tasks)), tasks).shape == (len(tasks), FRAMESKIP, 2)


def agent_of(model: WorldModel, planner: Planner, objective: Objective | None = None) -> Agent:
    settings = {"horizon": 2, "num_taken": 1, "shrinking": False, "num_context": 2, "clip_actions": True}
    return Agent(model, planner, objective or Objective(), **settings, memory_gb=1, seed=0)


@pytest.mark.parametrize("name", PLANNERS)
def test_an_agent_stays_on_the_gpu(name: str):
    with fake_gpu():
        play(agent_of(model_of("straight", "full").to(GPU).eval().requires_grad_(False), PLANNERS[name]()))


@pytest.mark.parametrize("objective", [Objective("all", 0.5), TopK(k=2)])
def test_an_objective_stays_on_the_gpu(objective: Objective):
    with fake_gpu():
        play(agent_of(model_of("straight", "full").to(GPU).eval(), CEM(4, 2, 1, 1.0), objective))


@pytest.mark.parametrize("predictor", ["straight", "rssm"])
def test_an_agent_without_a_planner_stays_on_the_gpu(predictor: str):
    with fake_gpu():
        model = model_of(predictor).to(GPU).eval()
        policy = actor(model) if predictor == "rssm" else InverseModel(DIM, TOKENS, 2 * FRAMESKIP, 3, 6)
        policy.to(GPU)
        play(InverseAgent(model, policy, num_taken=2, num_context=2, clip_actions=True, memory_gb=1))


def without_autocast(self: Bf16Predictor, state: Any, action: Tensor) -> tuple[Tensor, Any]:
    return self.predictor.step(state, action)


ROLLOUT, TRAINING, AGENT = "rollout", "training", "agent"
MISTAKES = {
    "a position left on the CPU": (ROLLOUT, FrameCausalViT, "positions", lambda self, *_: self.pos_embedding.cpu()),
    "a position of another type": (ROLLOUT, FrameCausalViT, "positions", lambda self, *_: self.pos_embedding.double()),
    "products of two types": (ROLLOUT, Bf16Predictor, "step", without_autocast),
    "directions left on the CPU": (TRAINING, sigreg.torch, "randn", lambda *size, **_: torch.zeros(*size)),
    "a number asked for": (TRAINING, SIGReg, "loss_weight", lambda self, _: self.weight * torch.ones(1, device=GPU).item()),
    "noise left on the CPU": (AGENT, KeyedNoise, "__call__", lambda self, _, size, __: torch.zeros(2, *size)),
    "numpy's view of the GPU": (AGENT, Normalizer, "denormalize_action", lambda self, block: block.numpy()),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found(mistake: str, windows: Windows, monkeypatch: pytest.MonkeyPatch):
    where, owner, name, planted = MISTAKES[mistake]
    with fake_gpu(), pytest.raises((RuntimeError, TypeError, AssertionError)):
        monkeypatch.setattr(owner, name, planted)
        if where == ROLLOUT:
            model = model_of("vit").to(GPU).eval()
            set_precision(model, "bf16", compiled=False)
            model.rollout(*situation())
        elif where == TRAINING:
            step(WorldModelTrainee(lewm().to(GPU), windows, windows, RECIPE, 0), windows.get(np.arange(2), GPU), "fp32")
        else:
            play(agent_of(model_of("straight").to(GPU), CEM(4, 2, 1, 1.0)))
