"""Recorded world models and CEM traces of any size are recomputed; a record that differs in anything is found."""

import copy
import math
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from plain_dino_wm import random_record, random_trace
from torch import Tensor

from wmbench.importers.golden import Quantity, model_of_record, recompute, recompute_cem, relative_error

SCRIPT = Path(__file__).parents[2] / "scripts" / "verify_golden.py"
SIZES = {
    "as recorded": {},
    "two frames, nine patches": {"num_hist": 2, "patches_per_side": 3, "heads": 2, "depth": 1},
    "one frame": {"num_hist": 1, "proprio_dim": 4, "action_dim": 10},
    "one token, four frames": {"patches_per_side": 1, "num_hist": 4},
    "one head as wide as the model": {"heads": 1, "dim_head": 15},
    "wide proprio": {"proprio_dim": 7, "proprio_emb_dim": 9, "action_emb_dim": 2, "action_dim": 3},
    "tokens": {"concat_dim": 0, "proprio_emb_dim": 6, "action_emb_dim": 6},
    "tokens, two frames": {"concat_dim": 0, "proprio_emb_dim": 6, "action_emb_dim": 6, "num_hist": 2, "patches_per_side": 3},
}
NAMES = {"z", "decoded", "rollout_1", "rollout_2"}
NAMES |= {f"cost.{mode}_a{alpha}" for mode in ("last", "all") for alpha in (0, 0.5, 2)}
NAMES |= {f"loss.{name}" for name in ("loss", "z_loss", "z_visual_loss", "z_proprio_loss")}
NAMES |= {f"loss.decoder_{kind}loss_{of}" for kind in ("", "recon_", "vq_") for of in ("pred", "reconstructed")}
RECOMPUTED = {
    "predictor": "transformer.layers.1.0.to_qkv.weight",
    "decoder": "dec.blocks.3.bias",
    "config": "heads",
    "loss": "z_loss",
    "predict": "T2",
    "obs": "proprio",
    "the record": "decoded",
}
FOREIGN = {"predictor": "head.weight", "loss": "kl", "predict": "T4", "cost": "first_a0", "the record": "surprise"}


def errors(quantities: list[Quantity]) -> dict[str, float]:
    return {name: relative_error(ours, recorded) for name, ours, recorded, _ in quantities}


def failed(quantities: list[Quantity]) -> set[str]:
    return {name for name, ours, recorded, limit in quantities if relative_error(ours, recorded) > limit}


@pytest.fixture(scope="module")
def record() -> dict:
    return random_record()


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_everything_in_a_record_of_any_size_is_recomputed(sizes: dict):
    record = random_record(**sizes)
    found = errors(list(recompute(record)))
    assert found.keys() == NAMES | {f"predict.T{t}" for t in range(1, record["config"]["num_hist"] + 1)}
    assert max(found.values()) < 1e-5, found


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_cem_goes_the_recorded_way_at_any_size(sizes: dict):
    record = random_record(**sizes)
    quantities = list(recompute_cem(random_trace(record), record))
    assert errors(quantities).keys() == {"mean", "std", "best_cost"}
    assert not failed(quantities), errors(quantities)


@pytest.mark.parametrize("change", ["number", "nan", "zero", "shape"])
@pytest.mark.parametrize("name", ["z", "predict.T2", "loss.z_proprio_loss", "decoded", "rollout_2.z", "cost.all_a0.5"])
def test_a_changed_number_is_found_and_named(record: dict, name: str, change: str):
    record = copy.deepcopy(record)
    part, _, key = name.partition(".")
    holder, key = (record[part], key) if key else (record, part)
    holder[key] = changed(holder[key], change)
    assert failed(list(recompute(record))) == {name.removesuffix(".z")}


@pytest.mark.parametrize("change", ["number", "nan", "zero", "shape"])
@pytest.mark.parametrize("name", ["mean", "std", "best_cost"])
def test_a_changed_number_of_a_trace_is_found_and_named(record: dict, name: str, change: str):
    """The number is one of the last iteration, whose std no later sample shows."""
    trace = random_trace(record)
    trace[name] = changed(trace[name], change)
    assert failed(list(recompute_cem(trace, record))) == {name}


def changed(recorded: Tensor, change: str) -> Tensor:
    if change == "shape":
        return recorded[..., None]
    if change == "zero":
        return torch.zeros_like(recorded)
    flat = recorded.flatten().clone()
    flat[-1] = math.nan if change == "nan" else flat[-1] + 0.01 * flat.norm()
    return flat.view_as(recorded)


def test_a_changed_weight_is_felt_by_what_it_feeds(record: dict):
    record = copy.deepcopy(record)
    record["predictor"]["transformer.norm.bias"][0] += 0.01
    assert {"predict.T1", "rollout_1", "loss.z_loss", "cost.last_a0"} <= failed(list(recompute(record)))
    assert not {"z", "decoded"} & failed(list(recompute(record)))


@pytest.mark.parametrize(
    ("wrong", "part", "name"),
    [*(("missing", *entry) for entry in RECOMPUTED.items()), *(("unknown", *entry) for entry in FOREIGN.items())],
)
def test_an_entry_that_is_missing_or_that_nothing_recomputes_is_refused_by_name(
    record: dict, wrong: str, part: str, name: str
):
    record = copy.deepcopy(record)
    entries = record if part == "the record" else record[part]
    if wrong == "missing":
        del entries[name]
    else:
        entries[name] = torch.zeros(2)
    with pytest.raises(ValueError, match=re.escape(f"{part}: {wrong} {name}")):
        list(recompute(record))


def test_a_tensor_that_does_not_fit_the_sizes_is_refused_by_name(record: dict):
    record = copy.deepcopy(record)
    record["config"]["num_hist"] = 2
    with pytest.raises(ValueError, match=r"predictor: pos_embedding is \(1, 12, 15\) instead of \(1, 8, 15\)"):
        model_of_record(record)


def test_relative_error_is_that_of_the_whole_tensor():
    recorded = torch.tensor([3.0, 0.0, 4.0])
    assert relative_error(recorded + torch.tensor([0.0, 0.5, 0.0]), recorded) == pytest.approx(0.1)
    assert relative_error(recorded, torch.zeros(3)) == pytest.approx(5.0)
    assert relative_error(torch.zeros(3), torch.zeros(3)) == 0
    assert relative_error(recorded, recorded[None]) == math.inf
    assert relative_error(recorded, torch.tensor([3.0, math.nan, 4.0])) == math.inf
    assert relative_error(torch.tensor([3.0, math.inf, 4.0]), recorded) == math.inf


@pytest.fixture
def verify(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable:
    """The command, in this process: its exit status, what it prints and its error."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["verify_golden.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return int(end.value.code), *capsys.readouterr()

    return run


def test_the_command_prints_a_line_a_quantity_and_follows_the_limits(tmp_path: Path, record: dict, verify: Callable):
    good, bad = tmp_path / "good.pt", tmp_path / "bad.pt"
    torch.save(record, good)
    torch.save(record | {"z": record["z"] * 1.0001}, bad)
    status, output, _ = verify(good)
    assert status == 0
    quantities = output.splitlines()[:-1]
    assert {line.split()[0] for line in quantities} == NAMES | {"predict.T1", "predict.T2", "predict.T3"}
    assert all(re.fullmatch(r"\S+ +\d\.\de[+-]\d\d +ok", line) for line in quantities)
    status, output, _ = verify(bad)
    assert status == 1
    assert [line for line in output.splitlines() if "FAILED" in line] == [f"{'z':<40}1.0e-04   FAILED, limit 0.00001"]


def test_the_command_says_what_a_trace_lacks_and_refuses_other_files(tmp_path: Path, record: dict, verify: Callable):
    trace, model, other, torn = (tmp_path / name for name in ("trace.pt", "model.pt", "other.pt", "torn.pt"))
    torch.save(random_trace(record), trace)
    torch.save(record, model)
    torch.save({"a": torch.zeros(2)}, other)
    torn.write_bytes(model.read_bytes()[:5000])
    assert verify(trace, "--world-model", model)[0] == 0
    for file, message in ((trace, "add --world-model FILE"), (other, "it holds a"), (torn, "is damaged")):
        status, _, error = verify(file)
        assert status == 1
        assert error.startswith(f"error: {file}") and message in error
