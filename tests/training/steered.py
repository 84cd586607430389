"""A world model around a small recurrent predictor, for what learns in dreams."""

import torch

from wmbench.data.normalizer import Normalizer
from wmbench.encoders.state import State
from wmbench.models.gru import GRUPredictor
from wmbench.models.world_model import WorldModel

ACTION = 6


def model_around(kind: type[GRUPredictor], dim: int) -> WorldModel:
    torch.manual_seed(0)
    predictor = kind(dim=dim, num_tokens=1, num_hist=3, action_dim=ACTION, hidden_dim=4, num_layers=1, mlp_dim=7, forecast=2)
    sizes = {"proprio": "none", "proprio_embed_dim": 1, "frameskip": 3, "num_hist": 3}
    normalizer = Normalizer(torch.tensor([0.1, -0.2]), torch.tensor([0.5, 0.4]), torch.zeros(4), torch.ones(4))
    return WorldModel(State(embed_dim=dim, velocity_weight=0.3, seed=0), predictor, normalizer, **sizes).eval()
