"""appearance= and goal_appearance= of plan.py: what is drawn, what the result's conditions say, and what stays as it was."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.errors import ConfigCompositionException
from in_process import compose

from wmbench.commands import explain
from wmbench.commands.players import _view_of, evaluation_of, looks_of, make_baseline
from wmbench.envs.appearance import presets
from wmbench.envs.vector import PointMazes
from wmbench.evaluation.conditions import Conditions
from wmbench.evaluation.episode_loop import Outcome, run_episodes
from wmbench.evaluation.tasks import sample_tasks
from wmbench.reports import contact_sheet


def view(words: str, own: str = "clean") -> dict[str, Any]:
    return _view_of(PointMazes(image_size=8, **looks_of(compose("plan", words), own)), "warp")


AS_BEFORE = {"renderer": "warp", "image_size": 8, "render_lag": False, "appearance": "clean"}


def test_a_run_is_drawn_as_its_data_were_unless_asked_otherwise():
    assert view("") == AS_BEFORE
    assert view("", own="all 0.05") == AS_BEFORE | {"appearance": "all 0.05"}
    shifted = AS_BEFORE | {"appearance": "textured 0.1", "goal_appearance": "clean"}
    assert view("appearance=textured appearance.scale=0.1") == shifted
    assert view("appearance=clean", own="all 0.05") == AS_BEFORE | {"goal_appearance": "all 0.05"}


def test_a_goals_appearance_has_the_scale_of_the_others_unless_it_says_its_own():
    same = view("appearance=all appearance.scale=0.2 goal_appearance=all")
    assert same == AS_BEFORE | {"appearance": "all 0.2"}
    other = view("appearance=all appearance.scale=0.2 goal_appearance=lit")
    assert other == AS_BEFORE | {"appearance": "all 0.2", "goal_appearance": "lit 0.2"}


@pytest.mark.parametrize("command", ["plan", "collect"])
def test_factors_may_be_given_their_values_on_the_command_line(command: str):
    cfg = compose(command, "appearance=clean appearance.values={camera_tilt:12,clutter:3}")
    assert str(looks_of(cfg)["appearance"]) == "clean camera_tilt=12 clutter=3"
    with pytest.raises(ValueError, match=r"ball_size \(2\) must be from 0.6 to 1.4"):
        looks_of(compose(command, "appearance=clean appearance.values={ball_size:2}"))


def test_conditions_of_clean_pictures_keep_their_hash_and_other_pictures_have_another():
    given: dict[str, Any] = {"maze": ["###", "#.#", "###"], "frameskip": 5, "tasks": "a1", "protocol": {"name": "demo"}}
    seen = [Conditions(**given, max_steps=50, view=each).hash for each in (AS_BEFORE, view(""), view("appearance=lit"))]
    assert seen[0] == seen[1] == "edfe678b" != seen[2]


def test_floors_and_the_simulator_take_an_appearance_which_cannot_change_what_they_do():
    cfg = compose("plan", "model_name=random appearance=all appearance.scale=0.2")
    player = make_baseline(cfg, "random", "umaze", 5)
    assert str(player.env.appearance) == "all 0.2" and player.row.renderer is None
    with pytest.raises(ValueError, match=r"appearance.scale \(0.5\) must be above 0 and at most 0.2"):
        make_baseline(compose("plan", "model_name=random appearance=all appearance.scale=0.5"), "random", "umaze", 5)


def test_a_scale_without_an_appearance_is_told_what_it_lacks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["plan.py", "appearance.scale=0.1"])
    with pytest.raises(ConfigCompositionException) as caught:
        compose("plan", "appearance.scale=0.1")
    assert explain(caught.value, "plan") == (
        "appearance.scale is a setting of appearance=NAME, which is not given; say one too: "
        "all, clean, cluttered, distracted, lit, textured, tilted"
    )


@pytest.mark.parametrize("appearance", [name for name in presets() if name != "clean"])
@pytest.mark.parametrize("row", ["random", "zero", "simulator"])
def test_who_does_not_look_solves_the_same_tasks_in_the_same_way_under_every_appearance(row: str, appearance: str):
    def play(words: str) -> Outcome:
        small = "protocol.max_steps=10 agent.horizon=2 planner.num_samples=6 planner.num_elites=2 planner.num_iters=1"
        cfg = compose("plan", f"model_name={row} {small} {words}")
        player = make_baseline(cfg, row, "umaze", 5)
        tasks = sample_tasks(player.env.maze, 2, 99, skip_solved=True, goal_at_rest=True)
        return run_episodes(player.agent, player.env, tasks, evaluation_of(cfg, player, tasks).rules, player.device)

    shifted, clean = play(f"appearance={appearance} appearance.scale=0.2 goal_appearance=all"), play("")
    np.testing.assert_array_equal(shifted.states, clean.states)
    np.testing.assert_array_equal(shifted.success, clean.success)


def test_the_contact_sheet_has_a_picture_for_every_factor_and_preset_at_every_level(monkeypatch: pytest.MonkeyPatch):
    drawn = []

    def frames(self: PointMazes, state: np.ndarray, **look: int) -> np.ndarray:
        drawn.append(str(self.appearance))
        return np.zeros((1, 8, 8, 3), np.uint8)

    monkeypatch.setattr(PointMazes, "frames", frames)
    sheet = contact_sheet.draw_contact_sheet("umaze", "warp", 8)
    assert len(drawn) == 3 * (1 + 19 + 6)
    assert len(set(drawn)) == 1 + 3 * (19 + 5)  # clean has no levels, and distractors are all of distracted
    assert {"blur 0.05", "blur 0.1", "blur 0.2", "all 0.2"} <= set(drawn)
    assert sheet.shape[2] == 3


def test_the_shipped_contact_sheet_is_small():
    assert (Path(__file__).parents[2] / "docs" / "appearances.png").stat().st_size < 600_000
