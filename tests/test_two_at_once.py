"""Two sweeps on one machine at once."""

import shutil
from pathlib import Path

import pytest
from forked import COLLECT, TRAIN, begin, end, quick
from in_process import run_here


def test_two_sweeps_on_one_unwritten_cache_end_as_one_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    quick(monkeypatch)
    together, alone, sweep = tmp_path / "together", tmp_path / "alone", TRAIN.replace("train.py", "train.py -m")
    alone.mkdir()
    run_here(alone, COLLECT)
    shutil.copytree(alone, together)
    run_here(alone, sweep)
    sweeps = {name: sweep.replace("model_name=a", f"model_name={name}") for name in ("a", "b")}
    monkeypatch.setattr("wmbench.data.token_file.POLL_S", 0.01)
    children = {name: begin(together, (sweeps[name],), together / name) for name in sweeps}
    for name, child in children.items():
        assert end(child, together / name) is not None
        assert "training reads" in (together / f"{name}.log").read_text()
        weights = (together / f"checkpoints/outputs/{name}/step_000012.safetensors").read_bytes()
        assert weights == (alone / "checkpoints/outputs/a/step_000012.safetensors").read_bytes()
    (kept,), (other,) = ((folder / "tokens").glob("*.latents") for folder in (together, alone))
    assert kept.read_bytes() == other.read_bytes()
