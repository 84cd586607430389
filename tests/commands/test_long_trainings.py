"""What a training of many steps tells before it encodes a frame, for every arm: short ones never come by here."""

import pytest
from in_process import compose, train

from wmbench.commands import learners
from wmbench.training.cost import evening

LINE = (
    "device=cpu frameskip=3 training.batch_size=4 training.max_steps=2 training.valid_batches=1 model_name=tiny "
    "encoder=efficientnet_lite0 encoder.pretrained=false encoder.image_size=64 num_hist=2 predictor.depth=1 "
    "predictor.num_heads=2 predictor.head_dim=6 predictor.mlp_dim=8"
)


@pytest.mark.parametrize(
    "words", ["", "arm=matched matched.width=6", "arm=matched matched.by_token=true matched.pool=2 matched.width=6"]
)
def test_each_arm_is_told_what_an_evening_is_enough_for(words, numbered_episodes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(learners, "MANY_STEPS", 2)
    monkeypatch.setattr(learners, "evening", lambda *given: evening(10**9, *given[1:]))
    data = numbered_episodes(num_episodes=6, length=12).path
    train(compose("train", f"{LINE} {words} env.data={data} ckpt_base_path={tmp_path} cache.dir={tmp_path}/latents"))
    assert "1,000,000,000 steps will take about" in capsys.readouterr().out
