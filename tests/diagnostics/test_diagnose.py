"""diagnostics.json: made part by part, kept, and made again only where what decides a part has changed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import compose
from PIL import Image

from wmbench.commands import diagnosis
from wmbench.commands.diagnosis import diagnose_run, runs_asked, success_of, tell
from wmbench.data.normalizer import fit_normalizer
from wmbench.diagnostics import diagnose as engine
from wmbench.diagnostics.diagnose import check_parts, read_diagnostics
from wmbench.envs.vector import PointMazes
from wmbench.runs.build import build_world_model
from wmbench.runs.folder import open_run
from wmbench.runs.load import save_weights

WORDS = "num_tasks=2 evaluations=25 num_episodes=4 horizon=2 spacing=0.5 device=cpu planner.num_iters=2"


@pytest.fixture
def base(tmp_path: Path, numbered_episodes: Callable, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs of the encoder that sees states, untrained, whose frames nobody draws."""
    monkeypatch.setattr(PointMazes, "frames", lambda self, state, *look: np.zeros((len(state), 8, 8, 3), np.uint8))
    episodes = numbered_episodes(num_episodes=40, length=12)
    for name in ("study_a", "study_b"):
        cfg = compose(
            "train",
            f"encoder=state frameskip=2 num_hist=2 predictor.depth=1 model_name={name} ckpt_base_path={tmp_path} "
            f"env.data={episodes.path}",
        )
        model = build_world_model(cfg, fit_normalizer(episodes))
        save_weights(open_run(cfg, model, episodes), 1, model)
    return tmp_path


def asked(base: Path, words: str = "", name: str = "study_a") -> Any:
    return compose("diagnose", f"model_name={name} ckpt_base_path={base} output_dir={base / 'plans'} {WORDS} {words}")


def test_every_part_is_written_with_finite_numbers_and_the_landscape_is_drawn(base: Path, capsys):
    found = diagnose_run(asked(base), "study_a")
    run = base / "outputs" / "study_a"
    assert json.loads((run / "diagnostics.json").read_text()) == found
    assert set(found["made"]) == set(engine.PARTS)
    numbers = [value for part in engine.PARTS for value in found[part].values()]
    assert len(numbers) > 100 and np.isfinite(numbers).all()
    assert found["landscape"]["spearman_geodesic"] > 0.5, "the state's own distance"
    assert found["geometry"]["untouched_share"] == 0, "a single token"
    lows = [name for part in engine.PARTS for name in found[part] if name.endswith("_low")]
    assert len(lows) == len([name for part in engine.PARTS for name in found[part] if name.endswith("_high")]) > 40
    assert Image.open(run / "landscape.png").width > 300
    assert "frames drawn and encoded" in capsys.readouterr().out


def test_a_part_is_made_again_only_where_its_settings_have_changed(base: Path, monkeypatch, capsys):
    words, made = "parts=[open_loop,landscape]", []
    for name, part in list(engine.PARTS.items()):
        counted = type(part)(**{**vars(part), "measure": lambda s, name=name, do=part.measure: made.append(name) or do(s)})
        monkeypatch.setitem(engine.PARTS, name, counted)
    first = diagnose_run(asked(base, words), "study_a")
    assert diagnose_run(asked(base, words), "study_a") == first and made == ["open_loop", "landscape"]
    assert "nothing to do" in capsys.readouterr().out
    diagnose_run(asked(base, f"{words} spacing=1.0"), "study_a")
    assert made == ["open_loop", "landscape", "landscape"]
    diagnose_run(asked(base, f"{words} spacing=1.0 num_episodes=3"), "study_a")
    assert made[3:] == ["open_loop"]


def test_a_run_that_was_trained_further_keeps_no_part_of_its_former_weights(base: Path):
    run = base / "outputs" / "study_a"
    before = diagnose_run(asked(base, "parts=[open_loop,probes]"), "study_a")
    (run / "step_000001.safetensors").rename(run / "step_000002.safetensors")
    after = diagnose_run(asked(base, "parts=open_loop"), "study_a")
    assert set(before["made"]) == {"open_loop", "probes"} and set(after["made"]) == {"open_loop"}
    assert "probes" not in after and after["step"] == 2


def test_what_is_done_is_kept_where_a_later_part_fails(base: Path, monkeypatch):
    def fail(subject):
        raise ValueError("no room")

    monkeypatch.setitem(engine.PARTS, "probes", type(engine.PARTS["probes"])(fail, ("encoded",), ("horizon",)))
    with pytest.raises(ValueError, match="no room"):
        diagnose_run(asked(base, "parts=[open_loop,probes]"), "study_a")
    assert set(read_diagnostics(base / "outputs" / "study_a")["made"]) == {"open_loop"}


def test_a_number_that_is_not_finite_is_refused_by_name(base: Path, monkeypatch):
    bad = type(engine.PARTS["probes"])(lambda subject: {"position_true": float("nan")}, ("encoded",), ("horizon",))
    monkeypatch.setitem(engine.PARTS, "probes", bad)
    with pytest.raises(ValueError, match=r"probes: position_true of .* is nan"):
        diagnose_run(asked(base, "parts=probes"), "study_a")


@pytest.mark.parametrize(
    "words, message",
    [
        ("parts=[rank]", r"parts \(\['rank'\]\) must be all or some of \[open_loop,probes,landscape"),
        ("num_tasks=1", r"num_tasks \(1\) must be at least 2"),
        ("spacing=2.0", r"spacing \(2.0\) must be more than 0 and at most 1 m"),
        ("planner=adam", "Adam differentiates its costs; take another, such as planner=icem"),
        ("env.data=gone.h5", r"no data set at gone.h5; .* or say where the run's episodes are now: env.data=PATH"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_the_way_out(base: Path, words: str, message: str):
    given = compose("diagnose", f"model_name=study_a ckpt_base_path={base} device=cpu {words}")
    with pytest.raises((ValueError, OSError), match=message):
        diagnose_run(given, "study_a")


def test_a_damaged_file_is_named(base: Path):
    (base / "outputs" / "study_a" / "diagnostics.json").write_text("{")
    with pytest.raises(ValueError, match=r"diagnostics.json is damaged .* delete it and it is made again"):
        diagnose_run(asked(base), "study_a")


def test_a_glob_names_the_runs_that_match_and_nothing_is_refused(base: Path):
    assert runs_asked(asked(base, name="study_*")) == ["study_a", "study_b"]
    with pytest.raises(ValueError, match=r"no run matches 'other_\*'.*study_a, study_b"):
        runs_asked(asked(base, name="other_*"))


def test_several_runs_are_told_in_a_table_with_what_goes_with_success(base: Path, monkeypatch, capsys):
    found = {f"r{k}": {"weights_hash": str(k), "landscape": {"spearman_geodesic": k / 5}} for k in range(5)}
    monkeypatch.setattr(
        diagnosis, "success_of", lambda results, weights: {name: int(weights[name]) / 10 for name in weights}
    )
    tell(asked(base), found)
    out = capsys.readouterr().out
    assert "landscape.spearman_geodesic" in out and "over 5 runs" in out and "1.0" in out
    assert success_of(base / "no_plans", {"a": "h"}) == {}


def test_parts_are_all_a_name_or_a_list_of_names():
    assert check_parts("all") == list(engine.PARTS)
    assert check_parts("probes") == check_parts(["probes"]) == ["probes"]
    for wrong in (3, [], ["probes", 1], None):
        with pytest.raises(ValueError, match="must be all or some of"):
            check_parts(wrong)
