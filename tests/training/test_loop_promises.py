"""The loop with a trainee of two weights: numbers that are not finite, full disks, damaged metrics, longer runs."""

import math
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from wmbench.data.windows import Windows
from wmbench.models.base import Losses
from wmbench.runs.recipe import Recipe
from wmbench.runs.store import RESUME, load_tensors
from wmbench.training import loop
from wmbench.training.cost import disk_bytes
from wmbench.training.metrics import Metrics
from wmbench.training.trainee import Trainee

SETTINGS = {"max_steps": 12, "batch_size": 2, "lr": 0.1, "weight_decay": 0.0, "warmup_fraction": 0.0, "cosine": False}
SETTINGS |= {"grad_clip": 1.0, "save_every": 5, "valid_every": 3, "valid_batches": 1}


class Line(Trainee):
    """Learns y = 2 x + 1; `spoil` changes the loss of a step, and `measured` what a validation finds."""

    def __init__(self, spoil: Callable[[int, Tensor], Tensor] = lambda step, loss: loss, measured: float = 1.0, **changed):
        torch.manual_seed(0)
        module = nn.Linear(1, 1)
        module.register_buffer("seen", torch.zeros(()))
        optimizer, nothing = torch.optim.AdamW(module.parameters(), lr=0.1), Windows.__new__(Windows)
        super().__init__(module, optimizer, nothing, Recipe(**SETTINGS | changed), 0)
        self.spoil, self.measured = spoil, measured

    def batches(self, first_step: int) -> Generator[tuple[int, Tensor], None, None]:
        step = first_step
        while True:
            step += 1
            yield step, torch.randn(4, 1, generator=torch.Generator().manual_seed(step))

    def forward(self, batch: tuple[int, Tensor]) -> Losses:
        step, x = batch
        self.module.seen += len(x)
        error = (self.module(x) - 2 * x - 1).square().mean()
        return Losses(self.spoil(step, error), {"error": error})

    def validate(self) -> dict[str, float]:
        return {"valid_error": self.measured}

    def save(self, run: Path, step: int) -> None:
        (run / f"saved_{step}").write_text("weights")


class Silent(torch.autograd.Function):
    """The loss itself, whose gradient is not a number."""

    @staticmethod
    def forward(context: object, loss: Tensor) -> Tensor:
        return loss.clone()

    @staticmethod
    def backward(context: object, gradient: Tensor) -> Tensor:
        return gradient * torch.nan


def train(trainee: Trainee, run: Path) -> list[dict]:
    run.mkdir(exist_ok=True)
    rows: list[dict] = []
    loop.train(trainee, run, announce=lambda seconds: None, log=rows.append)
    return rows


@pytest.mark.parametrize("how", [lambda loss: loss * torch.nan, lambda loss: loss + torch.inf, Silent.apply])
@pytest.mark.parametrize(("step", "good"), [(4, 0), (7, 5), (12, 10)])
@pytest.mark.parametrize("clip", [1.0, None])
def test_a_loss_or_gradient_that_is_not_finite_stops_and_keeps_what_was_good(
    tmp_path: Path, how: Callable, step: int, good: int, clip: float | None
):
    """Unclipped, a gradient that is not finite shows one step later, in the loss, or in the state that would be saved."""
    run = tmp_path / "run"
    with pytest.raises(ValueError) as error:
        train(Line(lambda at, loss: how(loss) if at == step else loss, grad_clip=clip), run)
    since = step + 1 if how == Silent.apply and clip is None and step < 12 else step
    assert f"is not finite since step {since} of 12" in str(error.value) and "\n" not in str(error.value)
    assert "a lower training.lr (0.1)" in str(error.value)
    if good:
        assert f"those of step {good}, in {run / RESUME}" in str(error.value)
        tensors, metadata = load_tensors(run / RESUME, "")
        assert metadata["step"] == str(good) and all(t.isfinite().all() for t in tensors.values() if t.is_floating_point())
    else:
        assert "nothing was saved yet" in str(error.value) and not (run / RESUME).exists()
    assert {path.name for path in run.glob("saved_*")} == {f"saved_{s}" for s in (5, 10) if s <= good}
    whole, resumed = Line(grad_clip=clip), Line(grad_clip=clip)
    train(whole, tmp_path / "whole")
    train(resumed, run)
    assert torch.equal(whole.module.weight, resumed.module.weight)
    assert [row["step"] for row in Metrics(run / "metrics.csv", 12).rows] == ["3", "6", "9", "12"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_measurement_that_is_not_finite_stops(tmp_path: Path, value: float):
    with pytest.raises(ValueError, match=r"valid_error is not finite since step 3 of 12; nothing was saved yet"):
        train(Line(measured=value), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.csv").exists()


@pytest.mark.parametrize("place", ["seen", "exp_avg_sq"])
def test_a_buffer_or_optimiser_that_is_not_finite_is_not_saved(tmp_path: Path, place: str):
    def spoil(step: int, loss: Tensor) -> Tensor:
        if step == 8:
            tensor = line.module.seen if place == "seen" else line.optimizer.state[line.module.bias]["exp_avg_sq"]
            tensor.fill_(torch.inf)
        return loss

    line = Line(spoil)
    with pytest.raises(ValueError, match=rf"{place} \(1 such\) is not finite since step 10 of 12.* those of step 5"):
        train(line, tmp_path / "run")
    assert load_tensors(tmp_path / "run" / RESUME, "")[1]["step"] == "5"


def test_no_step_asks_what_a_number_is_between_measurements(tmp_path: Path):
    """On a GPU each answer would be waited for."""

    class Count(TorchDispatchMode):
        asked = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.asked += function is torch.ops.aten._local_scalar_dense.default
            return function(*args, **kwargs or {})

    counts = []
    for every in (100, 1):
        line = Line(max_steps=60, save_every=60, valid_every=every)
        line.optimizer = torch.optim.SGD(line.module.parameters(), lr=0.1)  # asks for nothing by itself
        with Count() as count:
            train(line, tmp_path / str(every))
        counts.append(count.asked)
    assert counts[0] < 10 and counts[1] > 60


def test_a_training_that_the_disk_has_no_room_for_does_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    line, begun = Line(), []
    needed = disk_bytes(line, 0)
    assert needed == 3 * 4 + 3 * (3 * 4 + 2 * 2 * 4)  # two weights and a buffer; two numbers of each weight for Adam
    monkeypatch.setattr(loop, "free_disk", lambda path: needed - 1)
    with pytest.raises(OSError, match=r"needs 96 B of disk and .* has 95 B free; make room, .*training\.save_every"):
        loop.train(line, tmp_path, announce=begun.append)
    assert begun == [] and list(tmp_path.iterdir()) == []
    monkeypatch.setattr(loop, "free_disk", lambda path: needed)
    train(line, tmp_path)


def test_a_disk_that_fills_costs_nothing_that_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    train(whole := Line(), tmp_path / "whole")

    def full(self: Line, run: Path, step: int) -> None:
        if step > 5:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(Line, "save", full)
        train(Line(), tmp_path / "run")
    train(resumed := Line(), tmp_path / "run")
    assert torch.equal(whole.module.weight, resumed.module.weight)


def test_a_run_made_longer_ends_as_one_that_was_long_from_the_start(tmp_path: Path):
    train(whole := Line(max_steps=20), tmp_path / "whole")
    train(Line(), tmp_path / "run")
    train(longer := Line(max_steps=20, save_every=7, valid_every=2), tmp_path / "run")
    assert torch.equal(whole.module.weight, longer.module.weight)


@pytest.mark.parametrize("end", ["9,0.1", "9,0.1,0.", "\x00" * 20, "9"])
def test_half_a_last_row_is_written_again(tmp_path: Path, end: str):
    path = tmp_path / "metrics.csv"
    path.write_text(f"step,loss,valid\n3,0.5,0.6\n6,0.4,0.5\n{end}")
    metrics = Metrics(path, 8)
    metrics.append({"step": 9, "loss": 0.1, "valid": 0.2})
    assert path.read_text() == "step,loss,valid\n3,0.5,0.6\n6,0.4,0.5\n9,0.1,0.2\n"


@pytest.mark.parametrize("row", ["6,0.4", "6,0.4,0.5,7", "six,0.4,0.5", "6,\x00,0.5", ",,"])
def test_a_damaged_row_is_refused_by_its_line(tmp_path: Path, row: str):
    path = tmp_path / "metrics.csv"
    path.write_text(f"step,loss,valid\n3,0.5,0.6\n{row}\n9,0.1,0.2\n")
    with pytest.raises(ValueError, match=r"metrics\.csv is damaged in line 3; delete it to go on without the rows so far"):
        Metrics(path, 8)


def test_rows_of_an_older_version_with_fewer_columns_stay(tmp_path: Path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n3,0.5\n")
    Metrics(path, 3).append({"step": 6, "loss": 0.25, "extra": 2.0})
    assert path.read_text() == "step,loss,extra\n3,0.5,\n6,0.25,2.0\n"
    assert [row["step"] for row in Metrics(path, 6).rows] == ["3", "6"]


@pytest.mark.parametrize("at", [1, 2, 7])
def test_memory_that_runs_out_in_training_names_the_setting_and_what_is_kept(tmp_path: Path, at: int):
    """In the trial step, whose batches are the first two, and in a later step."""

    def spoil(step: int, loss: Tensor) -> Tensor:
        if step == at:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")
        return loss

    with pytest.raises(ValueError) as error:
        train(Line(spoil), tmp_path / "run")
    assert "batches of 2 do not fit into the memory of cpu (CUDA out of memory." in str(error.value)
    assert "Lower training.batch_size and train under another model_name=" in str(error.value)
    assert "\n" not in str(error.value)
    assert (f"what {tmp_path / 'run' / RESUME} holds is kept" in str(error.value)) == (at == 7)
    train(Line(), tmp_path / "run")


def test_tokens_that_are_not_finite_stop_a_training_before_its_first_step(tmp_path: Path):
    line = Line(lambda step, loss: loss * torch.nan)
    with pytest.raises(ValueError, match="training: the loss is nan before the first step, so it is not the training that"):
        train(line, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == [] and line.module.weight.isfinite().all()
