"""What other pictures cost a row is told against the same run's own success on clean ones, setting by setting."""

from dataclasses import replace

import pandas as pd
import pytest
from scipy.stats import beta

from wmbench.envs.appearance import Appearance
from wmbench.evaluation.conditions import Conditions
from wmbench.study.contrasts import Contrast, judge
from wmbench.study.grid import Study
from wmbench.study.shifts import Look, areas_of, looks_of, setting_of, shifts_of

LOOKS = {"clean": ("clean", None), "half": ("all 0.1", "clean"), "far": ("all 0.2", "clean"), "goal": ("all 0.1", None)}
# Tasks (of 10) that every run solves: `robust` loses nothing, `frail` as many as s says, and its runs differ by one.
SOLVED = {"robust": dict.fromkeys(LOOKS, 8), "frail": {"clean": 8, "half": 4, "far": 0, "goal": 6}}


def conditions(evaluation: str) -> Conditions:
    appearance, goal = LOOKS[evaluation]
    view = {"renderer": "egl", "image_size": 8, "render_lag": False, "appearance": appearance, "goal_appearance": goal}
    return Conditions(["###"], 5, "tasks", {"name": "bench"}, 30, view={k: v for k, v in view.items() if v is not None})


def played() -> tuple[pd.DataFrame, dict[str, Conditions]]:
    lines = [
        {
            **{"row": row, "seed": seed, "evaluation": evaluation, "conditions": conditions(evaluation).hash},
            **{"task": task, "stratum": 0, "geodesic": 1.0},
            "success": task < solved[evaluation] + (row == "frail" and evaluation == "clean" and seed == 0),
        }
        for row, solved in SOLVED.items()
        for evaluation in LOOKS
        for seed in range(5)
        for task in range(10)
    ]
    return pd.DataFrame(lines), {one.hash: one for one in map(conditions, LOOKS)}


def looks() -> dict[str, Look]:
    return {name: look for name in LOOKS if (look := Look.of(conditions(name)))}


def test_the_difference_to_clean_pictures_is_paired_by_run_and_task_and_names_its_setting():
    table, known = played()
    shifts = shifts_of(table, looks(), {"robust": "clean", "frail": "all 0.1"}, known).set_index(["row", "evaluation"])
    assert shifts.loc[("frail", "half"), "difference"] == pytest.approx(0.4 - 0.82)
    assert shifts.loc[("frail", "half"), "low"] < -0.42 < shifts.loc[("frail", "half"), "high"] < 0
    assert (shifts.loc["robust", "difference"] == 0).all()
    assert shifts.loc[("frail", "half"), "setting"] == "varied to varied, in range"
    assert shifts.loc[("frail", "far"), "setting"] == "varied to varied, out of range"
    assert set(shifts.loc["robust", "setting"]) == {"clean to shifted"}
    assert shifts["goals"].xs("goal", level=1).tolist() == ["as their episode"] * 2
    assert shifts["goals"].xs("far", level=1).tolist() == ["clean"] * 2


def test_tasks_that_all_stay_as_they_were_leave_an_interval_on_both_sides():
    table, known = played()
    line = shifts_of(table, looks(), {"robust": "clean"}, known).set_index(["row", "evaluation"]).loc[("robust", "far")]
    assert line["against"] == "clean" and line["difference"] == 0
    assert line["high"] == pytest.approx(-line["low"], rel=0.2)
    assert line["high"] == pytest.approx(beta.ppf(0.95, 0.5, 10.5), rel=0.1)  # Jeffreys, of ten tasks, half of them each way


def test_two_ways_to_plan_have_a_curve_each():
    table, known = played()
    other = {hash_: replace(one, max_steps=60) for hash_, one in known.items()}
    again = table.assign(evaluation=table["evaluation"] + "_open", success=False)
    again["conditions"] = again["conditions"].map({hash_: one.hash for hash_, one in other.items()})
    both = looks() | {f"{name}_open": look for name, look in looks().items()}
    areas = areas_of(pd.concat([table, again]), both, {"robust": "clean"}, known | {one.hash: one for one in other.values()})
    areas = areas.set_index(["row", "against"])["area"]
    assert areas["robust", "clean"] == pytest.approx(0.8) and areas["robust", "clean_open"] == 0


def test_a_look_that_changes_is_another_curve_than_one_that_holds():
    still, changing = (Look(Appearance.of(f"all 0.1{word}"), Appearance()) for word in ("", " changing"))
    assert (still.factors, changing.factors) == ("all", "all changing")
    given = Look(Appearance.of("clean blur=1"), Appearance())
    assert given.factors == "clean blur=1"


def test_a_clean_evaluation_of_other_settings_is_no_reference():
    table, known = played()
    other = {hash_: replace(one, max_steps=60) if "all" not in str(one.view) else one for hash_, one in known.items()}
    assert not len(shifts_of(table, looks(), {"robust": "clean"}, other))


def test_the_area_below_success_against_s_is_that_of_its_trapezoids():
    table, known = played()
    areas = areas_of(table, looks(), {"robust": "clean", "frail": "clean"}, known).set_index("row")
    assert areas["goals"].tolist() == ["clean"] * 2  # one scale with varied goals makes no curve
    assert areas.loc["robust", "area"] == pytest.approx(0.8)
    assert areas.loc["frail", "area"] == pytest.approx((0.82 + 0.4) / 4 + (0.4 + 0.0) / 4)


@pytest.mark.parametrize(
    ("trained", "shown", "setting"),
    [
        (None, "clean", "clean to clean"),
        ("clean", "all 0.05", "clean to shifted"),
        ("all 0.05", "clean", "varied to clean"),
        ("all 0.05", "textured 0.05", "varied to varied, in range"),
        ("all 0.05", "textured 0.1", "varied to varied, out of range"),
        ("textured 0.1", "all 0.05", "varied to varied, out of range"),
    ],
)
def test_a_setting_follows_from_what_was_trained_on_and_what_is_shown(trained: str | None, shown: str, setting: str):
    assert setting_of(trained, Appearance.of(shown)) == setting


def test_floors_see_nothing_and_an_evaluation_has_the_look_that_models_saw():
    class Played:
        evaluation = "half"

    assert looks_of({Played(): replace(conditions("half"), view=None)}) == {}
    assert looks_of({Played(): conditions("half")})["half"].seen == Appearance.of("all 0.1")


def test_a_contrast_against_clean_pictures_compares_what_two_rows_lose():
    table, known = played()
    asked = Contrast("loses", "robust", "frail", "a > b", "?", evaluation="half", against="clean")
    line = judge([asked], table, conditions=known).iloc[0]
    assert line["difference"] == pytest.approx(0.42) and line["verdict"] == "supported" and line["against"] == "clean"
    no_clean = table.query("evaluation != 'clean'")
    assert "no outcomes in evaluation clean" in judge([asked], no_clean, conditions=known).iloc[0]["reason"]
    fewer = table.query("evaluation != 'clean' or seed != 4")
    assert "not played by the same runs" in judge([asked], fewer, conditions=known).iloc[0]["reason"]


def test_a_row_learns_from_the_episodes_that_its_words_name(tmp_path):
    rows = {"usual": "encoder=pixels", "varied": f"encoder=pixels env.data={tmp_path}/datasets/varied.h5"}
    made = Study("two", tmp_path, rows, [0], {"closed": ""}, data="num_episodes=3", datasets={"varied": "appearance=all"})
    assert made.data_of("usual") == tmp_path / "data.h5" != made.data_of("varied")
    assert made.train_command("varied", [0]).count(f"env.data={made.data_of('varied')}") == 2
    assert "appearance=all" in made.collect_command(made.data_of("varied"))
    assert "num_episodes=3" in made.collect_command(made.data_file)
    assert f"env.data={made.data_of('varied')}" in made.diagnose_command("varied")
