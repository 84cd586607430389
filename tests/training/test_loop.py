"""Training: it learns, stops and goes on without a trace, and writes what it promises."""

import csv
import os
import signal
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from few_steps import FEW_STEPS, FRAMESKIP, NUM_HIST, new_normalizer, read_metrics
from torch import Tensor, nn

from wmbench.data.windows import Windows, compute_ahead
from wmbench.encoders.lewm import SmallLeWM
from wmbench.encoders.random_patch import RandomPatch
from wmbench.models.adaln import AdaLNPredictor
from wmbench.models.precision import Precision
from wmbench.models.sigreg import SIGReg
from wmbench.models.vit import FrameCausalViT
from wmbench.models.world_model import WorldModel
from wmbench.runs.recipe import Recipe
from wmbench.training import loop
from wmbench.training.world_model import WorldModelTrainee, compile_predictor, validate

OPTIONS = {"proprio": "none", "proprio_embed_dim": 1, "frameskip": FRAMESKIP, "num_hist": NUM_HIST}


def make_recipe(**changed) -> Recipe:
    return Recipe(**FEW_STEPS | changed)


def make_lewm() -> WorldModel:
    """Everything that leaves traces: dropout, BatchNorm, SIGReg's random directions."""
    torch.manual_seed(0)
    encoder = SmallLeWM(image_size=8, widths=[3, 4], embed_dim=5, projector_dim=6)
    size = {"smoothed_dim": 3, "depth": 1, "num_heads": 2, "head_dim": 4, "mlp_dim": 7, "dropout": 0.1, "projector_dim": 6}
    predictor = AdaLNPredictor(dim=5, num_tokens=1, num_hist=NUM_HIST, action_dim=2 * FRAMESKIP, **size)
    return WorldModel(encoder, predictor, new_normalizer(), regularizer=SIGReg(num_directions=9, weight=0.09), **OPTIONS)


def make_frozen() -> WorldModel:
    torch.manual_seed(0)
    size = {"action_embed_dim": 4, "depth": 1, "num_heads": 2, "head_dim": 6, "mlp_dim": 11, "dropout": 0.0}
    predictor = FrameCausalViT(dim=5, num_tokens=4, num_hist=NUM_HIST, action_dim=2 * FRAMESKIP, **size)
    encoder = RandomPatch(image_size=8, grid=2, embed_dim=5, seed=0)
    return WorldModel(encoder, predictor, new_normalizer(), **OPTIONS)


@pytest.fixture
def windows(numbered_episodes: Callable) -> tuple[Windows, Windows]:
    """Twenty windows to train on, four to validate."""
    episodes = numbered_episodes(num_episodes=6, length=12)
    train, valid = (Windows(episodes, np.array(which), NUM_HIST + 1, FRAMESKIP) for which in ([0, 1, 2, 4, 5], [3]))
    assert (len(train), len(valid)) == (20, 4)
    return train, valid


def train(model: WorldModel, windows: tuple[Windows, Windows], run: Path, recipe: Recipe | None = None, **changed):
    run.mkdir(exist_ok=True)
    options = {"seed": 1, "announce": lambda seconds: None, "log": lambda row: None} | changed
    trainee = WorldModelTrainee(model, *windows, recipe or make_recipe(), options.pop("seed"))
    if options.pop("compiled", False):
        compile_predictor(model, lambda: loop.measure_step(trainee))
    loop.train(trainee, run, **options)


def metrics(run: Path) -> list[dict[str, str]]:
    return read_metrics(run / "metrics.csv")


def assert_same_weights(model: WorldModel, other: WorldModel) -> None:
    for (name, ours), theirs in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


def raising_signal(number: signal.Signals, call: int) -> Callable[..., None]:
    """A hook that sends this process a signal when it is called for the call-th time."""
    calls = 0

    def hook(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), number)

    return hook


@pytest.mark.parametrize(("make_model", "column"), [(make_frozen, "valid_prediction"), (make_lewm, "loss")])
def test_the_loss_falls(make_model: Callable, column: str, windows: tuple[Windows, Windows], tmp_path: Path):
    train(make_model(), windows, tmp_path / "run", make_recipe(max_steps=80, batch_size=20, valid_every=1, save_every=80))
    values = [float(row[column]) for row in metrics(tmp_path / "run")]
    assert np.mean(values[-5:]) < 0.5 * np.mean(values[:5])


@pytest.mark.parametrize("step", [3, 6, 9])
def test_a_run_stopped_between_steps_ends_as_if_it_had_not_been(step: int, windows: tuple[Windows, Windows], tmp_path: Path):
    """Stopped by Ctrl-C while its step-th row is logged: before, between and after saves."""
    train(whole := make_lewm(), windows, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(make_lewm(), windows, tmp_path / "run", log=raising_signal(signal.SIGINT, step // 3))
    assert [row["step"] for row in metrics(tmp_path / "run")][-1] == str(step)
    train(resumed := make_lewm(), windows, tmp_path / "run")
    assert_same_weights(resumed, whole)
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_stopped_within_a_step_finishes_that_step_first(
    number: signal.Signals, windows: tuple[Windows, Windows], tmp_path: Path
):
    """Between the encoder, whose BatchNorm has counted the batch, and the predictor's dropout."""
    train(whole := make_lewm(), windows, tmp_path / "whole")
    stopped = make_lewm()
    stopped.predictor.register_forward_pre_hook(raising_signal(number, call=2 + 2))  # the trial step takes two
    with pytest.raises(KeyboardInterrupt):
        train(stopped, windows, tmp_path / "run")
    train(resumed := make_lewm(), windows, tmp_path / "run")
    assert_same_weights(resumed, whole)
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


def test_a_run_that_died_goes_on_from_its_last_save(windows: tuple[Windows, Windows], tmp_path: Path):
    """Killed while logging step 6: the row is there, the step's weights are not, and step 4 was saved."""
    train(whole := make_lewm(), windows, tmp_path / "whole")

    def power_cut(row: dict[str, float]) -> None:
        if row["step"] == 6:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train(make_lewm(), windows, tmp_path / "run", log=power_cut)
    logged = []
    train(resumed := make_lewm(), windows, tmp_path / "run", log=lambda row: logged.append(row["step"]))
    assert logged == [6, 9, 11]
    assert_same_weights(resumed, whole)
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


def test_signals_are_handled_as_before_when_training_ends(windows: tuple[Windows, Windows], tmp_path: Path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        train(make_lewm(), windows, tmp_path / "run", log=raising_signal(signal.SIGTERM, 1))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_finished_run_is_left_alone(windows: tuple[Windows, Windows], tmp_path: Path):
    train(whole := make_lewm(), windows, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    train(
        again := make_lewm(), windows, tmp_path / "run", announce=lambda seconds: pytest.fail("there is nothing to announce")
    )
    assert_same_weights(again, whole)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_the_same_seed_gives_the_same_run_and_another_another(windows: tuple[Windows, Windows], tmp_path: Path):
    for name, seed in (("first", 1), ("same", 1), ("other", 2)):
        train(make_lewm(), windows, tmp_path / name, seed=seed)
    assert metrics(tmp_path / "first") == metrics(tmp_path / "same")
    assert metrics(tmp_path / "first") != metrics(tmp_path / "other")


def test_the_trial_step_leaves_no_trace(windows: tuple[Windows, Windows], tmp_path: Path):
    model = make_lewm().train()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    announced = []

    def announce(seconds: float) -> None:
        announced.append(seconds)
        assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
        assert all(parameter.grad is None for parameter in model.parameters())
        assert torch.equal(torch.get_rng_state(), random_state)

    train(model, windows, tmp_path / "run", announce=announce)
    assert len(announced) == 1 and announced[0] > 0


def test_weights_are_saved_at_every_save_and_at_the_end(windows: tuple[Windows, Windows], tmp_path: Path):
    train(make_frozen(), windows, tmp_path / "run")
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    steps = [f"step_{step:06d}.safetensors" for step in (4, 8, 11)]
    assert names == ["metrics.csv", "resume.safetensors", "resume_before.safetensors", *steps]


def test_metrics_have_a_row_for_every_validation_and_for_the_last_step(windows: tuple[Windows, Windows], tmp_path: Path):
    logged = []
    train(make_lewm(), windows, tmp_path / "run", log=logged.append)
    assert [int(row["step"]) for row in metrics(tmp_path / "run")] == [3, 6, 9, 11] == [row["step"] for row in logged]
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["step", "loss", "prediction", "sigreg", "valid_prediction", "steps_per_s"]
    for row in rows:
        total = float(row["prediction"]) + 0.09 * 128 / 4 * float(row["sigreg"])  # the weight belongs to batches of 128
        assert float(row["loss"]) == pytest.approx(total, rel=1e-5)
        assert float(row["steps_per_s"]) > 0


def test_validation_is_the_mean_error_over_held_out_windows(windows: tuple[Windows, Windows]):
    model, valid = make_lewm().eval(), windows[1]
    with torch.no_grad():
        expected = model.loss(valid.get(np.arange(4))).parts["prediction"].item()
    assert validate(model, valid, make_recipe(batch_size=2, valid_batches=2)) == pytest.approx(expected, rel=1e-5)
    assert validate(model, valid, make_recipe(batch_size=9, valid_batches=1)) == pytest.approx(expected, rel=1e-5)


NEEDS_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
def test_validation_leaves_weights_buffers_and_random_state_alone(device: str, windows: tuple[Windows, Windows]):
    def state() -> list[Tensor]:
        on_gpu = [torch.cuda.get_rng_state()] if device == "cuda" else []
        return [torch.get_rng_state(), *on_gpu, *(tensor.clone() for tensor in model.state_dict().values())]

    model = make_lewm().to(device).train()
    before = state()
    validate(model, windows[1], make_recipe())
    assert all(torch.equal(a, b) for a, b in zip(state(), before, strict=True))
    assert all(module.training for module in model.modules())


def test_gradients_are_clipped_to_their_norm(
    windows: tuple[Windows, Windows], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    norms = []

    def step(self: torch.optim.AdamW) -> None:
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append(nn.utils.get_total_norm(gradients).item())

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    for name, clip in (("free", None), ("clipped", 1e-3)):
        train(make_frozen(), windows, tmp_path / name, make_recipe(max_steps=1, grad_clip=clip))
    free, clipped = norms
    assert free > 0.01
    assert clipped == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(
    ("make", "expected"), [(lambda: make_lewm(), ["forward", "tokens"]), (lambda: make_frozen(), ["forward"])]
)
def test_what_learns_is_compiled_the_encoder_too(make: Callable, expected: list[str], monkeypatch: pytest.MonkeyPatch):
    names = []
    monkeypatch.setattr(torch, "compile", lambda part: names.append(part.__name__) or part)
    compile_predictor(make(), lambda: None)
    assert names == expected


@pytest.mark.parametrize(
    ("step", "factor"), [(0, 1 / 20), (9, 10 / 20), (19, 1.0), (20, 1.0), (60, 0.5), (80, (1 - 0.5**0.5) / 2), (100, 0.0)]
)
def test_the_rate_rises_linearly_and_falls_as_a_cosine(step: int, factor: float):
    recipe = make_recipe(max_steps=100, lr=0.3, warmup_fraction=0.2, cosine=True)
    assert recipe.lr_at(step) == pytest.approx(0.3 * factor, abs=1e-12)


@pytest.mark.parametrize(("step", "factor"), [(0, 1 / 20), (19, 1.0), (60, 1.0), (99, 1.0)])
def test_without_cosine_the_rate_stays(step: int, factor: float):
    recipe = make_recipe(max_steps=100, lr=0.3, warmup_fraction=0.2, cosine=False)
    assert recipe.lr_at(step) == pytest.approx(0.3 * factor, abs=1e-12)


def test_without_warmup_the_first_step_has_the_full_rate():
    assert make_recipe(warmup_fraction=0.0, lr=0.3).lr_at(0) == 0.3


def test_the_optimiser_follows_the_rate(windows: tuple[Windows, Windows], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rates = []
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: rates.append(self.param_groups[0]["lr"]))
    recipe = make_recipe(max_steps=7)
    train(make_frozen(), windows, tmp_path / "run", recipe)
    assert rates == [recipe.lr_at(step) for step in range(7)]


@pytest.mark.parametrize("name", ["max_steps", "batch_size", "save_every", "valid_every", "valid_batches"])
def test_counts_that_are_not_positive_are_refused_by_name(name: str):
    with pytest.raises(ValueError, match=rf"training.{name} \(0\) must be positive"):
        make_recipe(**{name: 0})


@pytest.mark.parametrize("fraction", [-0.1, 1.1])
def test_a_warmup_longer_than_the_run_is_refused_by_name(fraction: float):
    with pytest.raises(ValueError, match=rf"training.warmup_fraction \({fraction}\) must be between 0 and 1"):
        make_recipe(warmup_fraction=fraction)


def test_batches_that_are_read_ahead_are_those_that_are_asked_for(windows: tuple[Windows, Windows]):
    """While a batch is in use the next one is read, and no other."""
    train, asked = windows[0], []
    expected = [train.get(index) for index, _ in zip(train.batches(4, seed=3), range(6), strict=False)]

    def batches():
        for index in train.batches(4, seed=3):
            asked.append(index)
            yield index

    with closing(compute_ahead(train.get, batches())) as found:
        for step, batch in enumerate(expected):
            read = next(found)
            assert torch.equal(read.obs["visual"], batch.obs["visual"]) and torch.equal(read.action, batch.action)
            assert len(asked) == step + 2


def test_what_goes_wrong_while_reading_ahead_stops_the_training(windows: tuple[Windows, Windows], tmp_path: Path):
    def visual(steps, episode, device):
        if threading.current_thread() is not threading.main_thread():
            raise OSError("the disk is gone")
        return windows[0].get(np.arange(len(steps))).obs["visual"]

    gone = windows[0].showing(SimpleNamespace(visual=visual, encoded=False))
    with pytest.raises(OSError, match="the disk is gone"):
        train(make_frozen(), (gone, windows[1]), tmp_path / "run")


def test_a_compiled_predictor_trains_and_where_that_fails_the_plain_one_does(
    windows: tuple[Windows, Windows], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """Stand-ins for torch.compile: one that counts, and one that fails when it is used, as without a C++ compiler."""
    calls = []

    def counting(forward: Callable) -> Callable:
        return lambda *inputs: calls.append(1) or forward(*inputs)

    def failing(forward: Callable) -> Callable:
        def compiled(*inputs):
            raise RuntimeError("no C++ compiler\nand much more")

        return compiled

    train(plain := make_lewm(), windows, tmp_path / "plain")
    for compiler in (counting, failing):
        monkeypatch.setattr(torch, "compile", compiler)
        train(model := make_lewm(), windows, tmp_path / compiler.__name__, compiled=True)
        assert_same_weights(model, plain)
    assert len(calls) >= 11
    assert capsys.readouterr().out == "note: torch.compile fails here (no C++ compiler); training goes on without it\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("lr", value) for value in (0.0, -1e-3, float("nan"), float("inf"))),
        *(("grad_clip", value) for value in (0.0, -1.0, float("nan"))),
        *(("weight_decay", value) for value in (-0.1, float("nan"))),
        ("batch_size", -4),
        ("warmup_fraction", float("nan")),
    ],
)
def test_settings_that_no_training_can_have_are_refused_by_name(name: str, value: object):
    with pytest.raises(ValueError, match=rf"^training\.{name} \({value!r}\) must "):
        make_recipe(**{name: value})


def test_a_setting_that_there_is_not_is_refused_by_name():
    with pytest.raises(ValueError, match="training has other settings than it should: foo; known: batch_size, cosine"):
        Recipe.of({**FEW_STEPS, "foo": 1, "regularizer": None})


@pytest.mark.parametrize("make_model", [make_frozen, make_lewm])
def test_a_world_model_that_is_not_finite_stops_before_its_first_step(make_model: Callable, windows, tmp_path: Path):
    model = make_model()
    with torch.no_grad():
        next(model.predictor.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="training: the loss is nan before the first step"):
        train(model, windows, tmp_path / "run")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
def test_a_deterministic_training_gives_the_same_bits_again_and_resumed(
    device: str, windows: tuple[Windows, Windows], tmp_path: Path
):
    few = make_recipe(max_steps=6, save_every=3)
    with Precision(deterministic=True).applied():
        train(one := make_lewm().to(device), windows, tmp_path / "one", few)
        with pytest.raises(KeyboardInterrupt):
            train(make_lewm().to(device), windows, tmp_path / "two", few, log=raising_signal(signal.SIGINT, 1))
        train(two := make_lewm().to(device), windows, tmp_path / "two", few)
    assert_same_weights(two, one)
