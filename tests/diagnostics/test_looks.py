"""Where the ball is, read from a latent under other looks: lost by pixels, and not by the state."""

import numpy as np
import pytest
import torch

from wmbench.data.normalizer import Normalizer
from wmbench.diagnostics.looks import found_at_scales
from wmbench.diagnostics.probe import NUM_FEATURES, Probe, fit_ridge, folded
from wmbench.diagnostics.subject import Subject
from wmbench.encoders.base import Encoder
from wmbench.encoders.pixels import Pixels
from wmbench.encoders.state import State
from wmbench.envs.mazes import Maze
from wmbench.envs.vector import PointMazes
from wmbench.evaluation.tasks import sample_tasks
from wmbench.models.vit import FrameCausalViT
from wmbench.models.world_model import WorldModel

NUM_FRAMES, SCALES = 500, ("0", "0.05", "0.1", "0.2")


@pytest.fixture(scope="module")
def env() -> PointMazes:
    return PointMazes("umaze", "warp", image_size=32)  # the same frames on every machine


def subject(encoder: Encoder, env: PointMazes) -> Subject:
    """A model without any training, with the probe that clean frames of random places give it."""
    made = object.__new__(Subject)
    normalizer = Normalizer(torch.zeros(2), torch.ones(2), torch.zeros(4), torch.ones(4))
    predictor = FrameCausalViT(encoder.embed_dim, 1, encoder.num_tokens, 4, 3, 1, 1, 4, 4, dropout=0.0)
    made.model = WorldModel(encoder, predictor, normalizer, proprio="none", proprio_embed_dim=1, frameskip=2, num_hist=1)
    made.env, made.device, made.on_frames = env, torch.device("cpu"), lambda count: None
    made.tasks = sample_tasks(Maze("umaze"), 10, 7, skip_solved=True, goal_at_rest=True, start_at_rest=True)
    states = np.stack([Maze("umaze").sample_state(np.random.RandomState(k)) for k in range(NUM_FRAMES)])
    z = folded(made.at_rest(states).flatten(1), NUM_FEATURES).double().numpy()
    weight, bias = fit_ridge(z, states[:, :2], np.arange(NUM_FRAMES) // 10)
    made.reader = Probe(torch.from_numpy(weight).float(), torch.from_numpy(bias).float(), r2=1.0)
    return made


def test_a_linear_probe_of_pixels_loses_the_ball_and_errs_the_more_the_further_looks_go(env: PointMazes):
    values = found_at_scales(subject(Pixels(grid=8, patch_size=4), env))
    errors = [values[f"error_m_{scale}"] for scale in SCALES]
    assert values["found_0"] > 0.9 and values["found_0.05"] < 0.5 and values["found_0.2"] < 0.2
    assert 0.5 > errors[0] < errors[1] < errors[2] < errors[3]
    assert str(env.appearance) == "clean"  # as it was


def test_the_state_is_read_alike_under_every_look(env: PointMazes):
    values = found_at_scales(subject(State(embed_dim=7, velocity_weight=0.3, seed=0), env))
    assert [values[f"found_{scale}"] for scale in SCALES] == [1, 1, 1, 1]
    assert len({values[f"error_m_{scale}"] for scale in SCALES}) == 1
