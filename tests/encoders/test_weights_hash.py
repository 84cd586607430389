"""The name of weights: computed once as long as they stay as they are."""

import hashlib

import pytest
import torch
from torch import nn

from wmbench.encoders import base
from wmbench.encoders.base import weights_hash


def test_weights_are_hashed_once_and_again_where_they_have_changed(monkeypatch: pytest.MonkeyPatch):
    hashed = []
    monkeypatch.setattr(base.hashlib, "sha256", lambda real=hashlib.sha256: hashed.append(1) or real())
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    names = [weights_hash(module), weights_hash(module)]
    with torch.no_grad():
        module[0].weight[0, 0] += 1
    names.append(weights_hash(module))
    module[0].weight = nn.Parameter(module[0].weight.detach() + 1)
    names.append(weights_hash(module))
    module[1].running_mean.add_(1)
    names.append(weights_hash(module))
    assert names[0] == names[1]
    assert len(set(names)) == len(hashed) == 4
    twin = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    twin.load_state_dict(module.state_dict())
    assert weights_hash(twin) == names[-1]
