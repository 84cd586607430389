"""study=objectives has every objective, and the row that is trained with its predictor trains."""

from collections.abc import Callable
from pathlib import Path

import pytest
from in_process import TRAIN, compose, train
from omegaconf import OmegaConf
from tiny_scratch import NAMES

from wmbench.commands import CONF
from wmbench.study.grid import Study


@pytest.fixture(scope="module")
def study() -> Study:
    cfg = OmegaConf.merge(compose("study", "study=objectives"), {"folder": "studies/objectives"})
    return Study.of(OmegaConf.to_container(cfg.study, resolve=True), Path("studies/objectives"))  # type: ignore[arg-type]


def test_every_objective_is_a_head_of_equal_budget_that_a_row_loads(study: Study):
    assert sorted(study.heads) == NAMES and study.notes == []
    budgets = {tuple(word for word in words.split() if not word.startswith("pretraining")) for words in study.heads.values()}
    assert len(budgets) == 1
    for head in study.heads:
        assert f"pretraining={head}" in study.heads[head].split()
        assert sum(str(study.head_file(head)) in words for words in study.rows.values()) == 1


def test_the_same_study_has_varied_pictures():
    clean, varied = (OmegaConf.load(Path(CONF, "study", f"objectives{name}.yaml")) for name in ("", "_varied"))
    assert varied.data == f"{clean.data} appearance=all"


def test_the_row_from_end_to_end_trains_its_encoder(study: Study, numbered_episodes: Callable, tmp_path: Path):
    data = numbered_episodes(num_episodes=6, length=12).path
    tiny = "encoder.image_size=16 encoder.trunk.widths=[6] encoder.embed_dim=4 predictor.dropout=0.0"
    cfg = compose("train", f"{study.rows['lewm']} {TRAIN} {tiny} env.data={data} model_name=tiny ckpt_base_path={tmp_path}")
    encoder = train(cfg).encoder
    assert not encoder.frozen and encoder.source == "untrained, seed 0, trained with the model"
