"""Training in several processes: the batch decides the result, and not how many processes share it."""

from collections.abc import Callable
from pathlib import Path

import families
import pytest
from few_steps import read_metrics
from in_process import compose, load_script
from several import in_processes

RECIPE = (
    "device=cpu frameskip=3 "
    "training.batch_size=6 training.max_steps=3 training.cosine=false training.save_every=2 training.valid_every=1 "
    "training.valid_batches=1"
)
COMMON = f"{RECIPE} num_hist=2 predictor.depth=1 predictor.num_heads=2 predictor.head_dim=4 predictor.mlp_dim=8"
FROZEN = "encoder=random_patch encoder.image_size=8 encoder.grid=2 encoder.embed_dim=5"
PARTS = (
    "decoder=vqvae decoder.channel=6 decoder.res_channel=4 decoder.num_codes=7 decoder.quantize=true distance=quasimetric "
    "distance.token_width=3 distance.width=8 distance.horizon=2 policy=inverse policy.token_width=3 policy.width=8 "
    + " ".join(
        f"{part}.training.max_steps=2 {part}.training.batch_size=6 {part}.training.valid_every=1"
        for part in ("decoder", "distance", "policy")
    )
)
LEWM = (
    "encoder=lewm_small encoder.image_size=8 encoder.widths=[3,4] encoder.embed_dim=6 encoder.projector_dim=7 "
    "training.regularizer.num_directions=9 predictor.smoothed_dim=3 predictor.projector_dim=7"
)
ROWS = {  # dropout, a cache, codes that follow, BatchNorm in heads | BatchNorm, SIGReg, dropout | every other predictor
    "parts": f"{COMMON} {FROZEN} {PARTS}",
    "lewm": f"{COMMON} {LEWM}",
    **{name: f"{RECIPE} {words}" for name, (words, _) in families.ROWS.items()},
}
FEW = ("parts", "lewm", "rssm")


def train(row: str, data: Path, folder: Path, *words: str) -> None:
    places = f"env.data={data} ckpt_base_path={folder} cache.dir={folder}/tokens cache.enabled=auto model_name={row}"
    load_script("train.py").main.__wrapped__(compose("train", " ".join([ROWS[row], places, *words])))


@pytest.fixture
def data(numbered_episodes: Callable) -> Path:
    return numbered_episodes(num_episodes=5, length=18).path


def losses(run: Path) -> dict[str, list[dict[str, float]]]:
    """Rows of every metrics.csv of a run."""
    rows = {path.name: read_metrics(path) for path in sorted(run.glob("*metrics.csv"))}
    return {name: [{key: float(value) for key, value in row.items()} for row in found] for name, found in rows.items()}


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def check_same(found: Path, expected: Path, row: str) -> None:
    """Losses within rounding, and what is validated but for LeWM: a bias before BatchNorm has no gradient but rounding, of
    which Adam makes a step that only the running mean feels."""
    mine, theirs = (losses(folder / "outputs" / row) for folder in (found, expected))
    assert mine.keys() == theirs.keys()
    for name, steps in theirs.items():
        for step, other in zip(mine[name], steps, strict=True):
            for key, value in other.items():
                rel = 0.02 if (row, key) == ("lewm", "valid_prediction") else 2e-5
                assert step[key] == pytest.approx(value, rel=rel, abs=1e-6), (row, name, key)


@pytest.mark.parametrize(
    ("number", "names"),
    [(2, FEW), pytest.param(3, FEW, marks=pytest.mark.slow), pytest.param(2, (*families.ROWS,), marks=pytest.mark.slow)],
)
def test_several_processes_train_as_one_does(number: int, names: tuple[str, ...], data: Path, tmp_path: Path):
    def work() -> None:
        for row in names:
            train(row, data, folder)

    for count in (1, number):
        folder = tmp_path / str(count)
        assert in_processes(tmp_path / f"met_{count}", count, work) == [None] * count
    assert files(folder) == files(tmp_path / "1")
    for row in names:
        check_same(folder, tmp_path / "1", row)


def test_a_training_goes_on_in_another_number_of_processes(data: Path, tmp_path: Path):
    train("lewm", data, tmp_path / "whole")
    in_processes(tmp_path / "met", 2, lambda: train("lewm", data, tmp_path / "begun", "training.max_steps=2"))
    assert len(losses(tmp_path / "begun/outputs/lewm")["metrics.csv"]) == 2
    train("lewm", data, tmp_path / "begun")
    check_same(tmp_path / "begun", tmp_path / "whole", "lewm")


def test_a_batch_that_does_not_divide_is_refused(data: Path, tmp_path: Path):
    def work() -> None:
        with pytest.raises(ValueError, match="a batch of 6 does not divide among 4 processes; make it 8, or let torchrun"):
            train("lewm", data, tmp_path)

    assert in_processes(tmp_path / "met", 4, work) == [None] * 4
