"""Verdicts on contrasts, from outcomes whose truth is known."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import yaml

from wmbench.evaluation.conditions import Conditions
from wmbench.study.contrasts import COLUMNS, Contrast, judge, read_contrasts
from wmbench.study.outcomes import Outcomes, all_pairs, planning_gaps, summarise

ROOT = Path(__file__).parents[2]
NUM_TASKS = 60


def outcomes(rows: dict[str, tuple[float, int]], evaluation: str = "closed") -> pd.DataFrame:
    """Rows that solve the easiest share of the tasks, one task more or less in each run; 0 runs: a floor, played once."""
    parts = []
    for row, (share, num_seeds) in rows.items():
        for seed in range(max(1, num_seeds)):
            solved = np.arange(NUM_TASKS) < share * NUM_TASKS + seed % 2
            part = pd.DataFrame({"task": np.arange(NUM_TASKS), "stratum": np.arange(NUM_TASKS) % 3})
            part["geodesic"] = 1 + part["task"] / 10
            part["success"], part["final_distance"] = solved, np.where(solved, 0.1, 2.0)
            parts.append(part.assign(row=row, seed=seed if num_seeds else None, evaluation=evaluation, conditions="c0"))
    return pd.concat(parts, ignore_index=True)


def contrast(a: str, b: str, expect: str = "a > b", **others) -> Contrast:
    return Contrast(f"{a} {expect} {b} {others}", a, b, expect, "?", **others)


TABLE = outcomes({"good": (0.8, 5), "bad": (0.3, 6), "as_good": (0.8, 5), "few": (0.3, 4), "simulator": (1.0, 0)})


@pytest.mark.parametrize(
    ("one", "word"),
    [
        (contrast("good", "bad"), "supported"),
        (contrast("bad", "good"), "contradicted"),
        (contrast("bad", "good", "b > a"), "supported"),
        (contrast("good", "bad", "a = b"), "contradicted"),
        (contrast("good", "as_good"), "equivalent"),
        (contrast("good", "as_good", "a = b"), "supported"),
        (contrast("good", "few"), "no claim"),
        (contrast("simulator", "good"), "supported"),
        (contrast("good", "absent"), "untested"),
        (contrast("good", "bad", evaluation="open"), "untested"),
        (contrast("good", "bad", outcome="held"), "untested"),
        (contrast("good", "bad", outcome="final_distance"), "supported"),
        (contrast("good", "bad", outcome="log_final_distance"), "supported"),
    ],
)
def test_an_expectation_is_told_whether_it_came_true(one: Contrast, word: str):
    assert judge([one], TABLE)["verdict"].tolist() == [word]


def test_a_line_has_the_difference_its_intervals_and_what_could_be_found():
    line = judge([contrast("good", "bad")], TABLE).iloc[0]
    assert list(line.index) == COLUMNS
    assert line["difference"] == pytest.approx(0.5 + (2 / 5 - 3 / 6) / NUM_TASKS)
    assert 0.3 < line["low"] < line["difference"] < line["high"] < 0.7
    assert line["t_low"] < line["difference"] < line["t_high"]
    assert (line["n_seeds_a"], line["n_seeds_b"], line["n_tasks"], line["margin"]) == (5, 6, NUM_TASKS, 0.03)
    assert line["power"].startswith("with 5 or 6 seeds and 60 tasks, differences of about ")
    assert line["power"].endswith(" points are detectable (80% power, two-sided 5%)")


def test_what_is_untested_or_not_claimed_says_why_and_counts_for_no_other():
    alone = judge([contrast("good", "bad")], TABLE)
    many = judge([contrast("good", "bad"), contrast("absent", "bad"), contrast("good", "few")], TABLE)
    assert many["p_holm"].iloc[0] == alone["p_holm"].iloc[0] == alone["p"].iloc[0]
    assert many["p_holm"].iloc[1:].isna().all()
    assert many["reason"].iloc[1] == "absent has no outcomes in evaluation closed; it has: none"
    assert many["reason"].iloc[2] == "4 training runs, at least 5 are needed"
    assert many["difference"].iloc[2] == pytest.approx(0.5, abs=0.01)


def test_more_contrasts_ask_for_smaller_p_values():
    family = [contrast("good", "bad"), contrast("as_good", "bad"), contrast("good", "as_good")]
    judged = judge(family, TABLE)
    assert judged["p_holm"].iloc[0] == pytest.approx(3 * judged["p"].iloc[0])


def test_a_contrasts_margin_goes_before_the_studys():
    wide, narrow = contrast("good", "bad", "a = b", margin=0.9), contrast("good", "bad", "a = b")
    assert judge([wide, narrow], TABLE, margin=0.02)[["margin", "verdict"]].values.tolist() == [
        [0.9, "supported"],
        [0.02, "contradicted"],
    ]


def test_a_row_is_compared_with_itself_in_another_evaluation_by_run_and_task():
    """Runs that differ in ability, and tasks in difficulty, leave no trace where each gains the same."""
    before, after = (outcomes({"good": (share, 5)}, name) for share, name in ((0.3, "cem"), (0.5, "icem")))
    line = judge([contrast("good", "good", evaluation="icem", b_evaluation="cem")], pd.concat([before, after])).iloc[0]
    assert line["difference"] == pytest.approx(0.2) and line["verdict"] == "supported"
    assert np.isnan(line["t_low"])  # all runs gain alike
    assert line["low"] > 0.05  # the spread of the tasks, which gain or do not
    after.loc[after["seed"] == 4, "success"] = False
    line = judge([contrast("good", "good", evaluation="icem", b_evaluation="cem")], pd.concat([before, after])).iloc[0]
    gains = [0.2, 0.2, 0.2, 0.2, -0.3]
    known = scipy.stats.ttest_1samp(gains, 0).confidence_interval()
    assert (line["t_low"], line["t_high"]) == pytest.approx(tuple(known))
    same = [contrast("good", "good", "a = b", evaluation="cem", b_evaluation="again")]
    line = judge(same, pd.concat([before, before.assign(evaluation="again")])).iloc[0]
    assert line["low"] < 0 == line["difference"] < line["high"]  # tasks that were not played may differ both ways


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"b": "good"}, "compares good with itself; b_evaluation= another"),
        ({"b": "good", "b_evaluation": "closed"}, "compares good with itself"),
        ({"b": "bad", "b_evaluation": "open"}, r"b_evaluation \(open\) is for a row and itself, not bad"),
    ],
)
def test_a_contrast_that_compares_nothing_or_two_things_at_once_is_refused(others: dict[str, str], message: str):
    with pytest.raises(ValueError, match=message):
        Contrast("one", "good", expect="a > b", question="?", **others)


def test_the_interval_of_a_distance_ends_at_0_however_far_two_runs_are_apart():
    far = outcomes({"two": (0.1, 1)}).assign(seed=1)
    lines = summarise(pd.concat([outcomes({"two": (0.9, 1)}), far])).set_index("outcome")
    assert lines.loc["final_distance", "success_low"] == 0 < lines.loc["final_distance", "success"]
    assert lines.loc["log_final_distance", "success_low"] < np.log(0.1)


def test_contrasts_come_back_from_a_csv_file(tmp_path: Path):
    judged = judge([contrast("good", "bad"), contrast("absent", "bad")], TABLE)
    judged.to_csv(tmp_path / "contrasts.csv", index=False)
    read = pd.read_csv(tmp_path / "contrasts.csv")
    assert read["verdict"].tolist() == ["supported", "untested"]
    assert "5,6,60" in (tmp_path / "contrasts.csv").read_text()


def test_outcomes_that_were_written_to_a_csv_file_judge_alike(tmp_path: Path):
    TABLE.to_csv(tmp_path / "outcomes.csv", index=False)
    family = [contrast("good", "bad"), contrast("simulator", "bad")]
    pd.testing.assert_frame_equal(judge(family, pd.read_csv(tmp_path / "outcomes.csv")), judge(family, TABLE))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda table: table.drop(index=3), "training runs of good have not all played the same tasks of"),
        (lambda table: pd.concat([table, table.head(1)]), "training runs of good have not all played the same tasks of"),
        (
            lambda table: table.assign(conditions=table["seed"].astype(str)),
            "good has results of several conditions in evaluation",
        ),
        (lambda table: table.assign(task=table["task"] + (table["row"] == "good")), "they did not play the same tasks"),
        (
            lambda table: table.assign(geodesic=table["geodesic"] + (table["row"] == "bad")),
            "they did not play the same tasks",
        ),
    ],
)
def test_runs_that_cannot_be_paired_are_not_compared(damage, reason: str):
    judged = judge([contrast("good", "bad")], damage(TABLE)).iloc[0]
    assert judged["verdict"] == "untested"
    assert judged["reason"].startswith(reason)


def under(**changed) -> Conditions:
    common: dict = {"maze": ["###"], "frameskip": 5, "tasks": "t1", "protocol": {"name": "bench"}, "max_steps": 50}
    return Conditions(**common | changed)


PIXELS = under(view={"renderer": "warp"}, planner={"num_samples": 30})
STATE = under(planner={"num_samples": 30})
OTHER = under(view={"renderer": "warp"}, planner={"num_samples": 60})


def test_rows_that_played_under_other_conditions_are_not_compared():
    table, known = TABLE.copy(), {one.hash: one for one in (PIXELS, STATE, OTHER)}
    for row, conditions in (("good", PIXELS), ("as_good", STATE), ("bad", OTHER), ("simulator", STATE)):
        table.loc[table["row"] == row, "conditions"] = conditions.hash
    family = [contrast("good", "as_good"), contrast("good", "bad"), contrast("simulator", "good")]
    judged = judge(family, table, conditions=known)
    assert judged["verdict"].tolist() == ["equivalent", "untested", "supported"]
    assert judged["reason"].iloc[1] == "they did not play under the same conditions: planner.num_samples 30 / 60"
    pairs, shown = all_pairs(table, "closed", conditions=known)
    assert set(pairs["a"]) | set(pairs["b"]) == set(shown) == {"good", "as_good", "simulator"}
    assert planning_gaps(table, conditions=known)["row"].tolist() == ["as_good", "few", "good"]


def test_a_row_whose_runs_played_under_several_conditions_is_left_out_and_named():
    table = TABLE.copy()
    table.loc[(table["row"] == "good"), "conditions"] = PIXELS.hash
    table.loc[(table["row"] == "good") & (table["seed"] == 3), "conditions"] = OTHER.hash
    known = {one.hash: one for one in (PIXELS, OTHER)}
    assert "good" not in set(summarise(table)["row"])
    assert "good" not in all_pairs(table, "closed", conditions=known)[1]
    problem = "good has results of several conditions in evaluation closed: planner.num_samples "
    assert [found.startswith(problem) for found in Outcomes(table, known).problems()] == [True]
    assert judge([contrast("good", "bad")], table, conditions=known)["reason"].iloc[0].startswith(problem)


GOOD = {"name": "n", "a": "dinov2", "b": "mae", "expect": "a > b", "question": "?"}


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ([GOOD | {"seeds": 5}], "contrast n: unknown seeds; known: name, a, b, expect"),
        ([{"name": "n", "a": "dinov2"}], "contrast n lacks b, expect, question"),
        ([GOOD | {"expect": "a >= b"}], "contrast n: expect is 'a >= b', must be one of: a > b, b > a, a = b"),
        ([GOOD | {"outcome": "reward"}], "contrast n: outcome is 'reward', must be one of: success, "),
        ([GOOD | {"b": "dinov2"}], "contrast n compares dinov2 with itself"),
        ([GOOD | {"margin": 0}], "contrast n: margin (0) must be above 0"),
        ([GOOD, GOOD], "contrasts of one name: n; give each its own"),
    ],
)
def test_a_contrast_that_says_something_else_is_refused(written: list, message: str):
    with pytest.raises(ValueError) as refused:
        read_contrasts(written)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("path", sorted(Path(ROOT, "conf/study").glob("*.yaml")), ids=lambda path: path.stem)
def test_contrasts_of_every_study_are_readable(path: Path):
    for one in read_contrasts(yaml.safe_load(path.read_text()).get("contrasts", [])):
        assert one.question.endswith((".", "?", ".)"))


def test_the_study_of_encoders_compares_rows_that_start_with_an_encoders_name():
    encoders = [path.stem for path in Path(ROOT, "conf/encoder").glob("*.yaml")]
    contrasts = read_contrasts(yaml.safe_load(Path(ROOT, "conf/study/encoders.yaml").read_text())["contrasts"])
    assert len(contrasts) >= 16
    rows = {row for one in contrasts for row in (one.a, one.b)}
    assert not [row for row in rows if row not in encoders and not row.startswith(tuple(f"{name}_" for name in encoders))]


def test_every_row_evaluation_and_outcome_has_its_interval():
    table = pd.concat([TABLE, outcomes({"good": (0.5, 5)}, "open").assign(held=True)])
    summary = summarise(table).set_index(["row", "evaluation", "outcome"])
    assert ("good", "open", "held") in summary.index
    assert ("good", "closed", "held") not in summary.index
    good = summary.loc[("good", "closed", "success")]
    assert good["success"] == pytest.approx(0.8 + 2 / 5 / NUM_TASKS)
    assert 0.6 < good["success_low"] < good["success"] < good["success_high"] < 0.95
    assert (good["n_seeds"], good["n_tasks"], good["radius"]) == (5, NUM_TASKS, 0.5)
    simulator = summary.loc[("simulator", "closed", "success")]
    assert simulator["n_seeds"] == 0
    assert simulator["success_low"] < simulator["success_high"] == simulator["success"] == 1


def test_all_pairs_put_the_better_row_first_and_give_letters():
    pairs, shown = all_pairs(TABLE, "closed")
    assert set(zip(pairs["a"], pairs["b"], strict=True)) >= {("simulator", "good"), ("good", "bad"), ("as_good", "bad")}
    assert (pairs["difference"] >= 0).all()
    assert (pairs["p_bh"] >= pairs["p"]).all()
    assert shown == {"simulator": "a", "good": "b", "as_good": "b", "bad": "c"}  # "few" has too few runs
    nearest, _ = all_pairs(TABLE, "closed", "final_distance")
    assert (nearest["difference"] <= 0).all()


def test_the_planning_gap_is_what_the_simulator_solves_more():
    gaps = planning_gaps(TABLE).set_index("row")
    assert "simulator" not in gaps.index
    assert gaps.loc["bad", "gap"] == pytest.approx(0.7 - 3 / 6 / NUM_TASKS)
    assert gaps.loc["bad", "gap_low"] < gaps.loc["bad", "gap"] < gaps.loc["bad", "gap_high"]
    assert planning_gaps(TABLE[TABLE["row"] != "simulator"]).empty


@pytest.mark.parametrize(
    ("row", "outcome", "words"),
    [
        ("bad", "final_distance", " m are detectable"),
        ("bad", "log_final_distance", "differences of about a factor of "),
        ("few", "success", "with 4 or 5 seeds and 60 tasks, differences of about "),
        ("simulator", "success", "with 5 seeds and 60 tasks, "),
    ],
)
def test_the_power_sentence_speaks_the_outcomes_unit(row: str, outcome: str, words: str):
    assert words in judge([contrast("good", row, outcome=outcome)], TABLE)["power"].iloc[0]


def test_two_runs_that_differ_find_nothing_surely():
    runs = [outcomes({"spread": (share, 1)}).assign(seed=seed) for seed, share in enumerate((0.1, 0.9))]
    line = judge([contrast("spread", "simulator")], pd.concat([*runs, TABLE])).iloc[0]
    assert line["power"] == "with 2 seeds and 60 tasks, nothing is surely detectable (80% power, two-sided 5%)"
