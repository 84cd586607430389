"""The results table: which rows stay, what is compared with what."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from in_process import load_script
from scipy.stats import binomtest

from wmbench.evaluation.scores import NAMES
from wmbench.reports.table import make_table, missing_baselines, readable, to_html, to_markdown, write_table


@pytest.fixture
def summary(tmp_path):
    """Factory of summaries whose tasks.csv lie on disk."""

    def make(
        row: str, success: str, protocol: str = "demo", tasks_hash: str = "t1", max_rounds: int | None = None, **others
    ):
        outcomes = np.array([mark == "+" for mark in success])
        folder = tmp_path / f"{row}_{protocol}_{tasks_hash}_{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        pd.DataFrame({"success": outcomes, "steps": np.where(outcomes, 3, 10)}).to_csv(folder / "tasks.csv")
        settings = {"protocol": {"name": protocol, "task_seed": 99, "max_rounds": max_rounds}, "planner": {}, "agent": {}}
        numbers = {"success": outcomes.mean(), "success_low": 0.1, "success_high": 0.9, "n_tasks": len(outcomes)}
        rest = {"steps_to_success": 3.0, "final_distance": 0.4, "seconds_per_plan": 0.0, "max_steps": 10, "seed": 0}
        names = {"row": row, "protocol": protocol, "tasks_hash": tasks_hash, "folder": str(folder), "settings": settings}
        return numbers | rest | names | others

    return make


def test_rows_fall_in_success_within_their_protocol(summary):
    table = make_table([summary("a", "+---"), summary("b", "+++-"), summary("c", "++++", "other", "t2")])
    assert list(table["row"]) == ["b", "a", "c"]


def test_of_equal_results_the_newest_stays_and_other_seeds_or_weights_are_rows_of_their_own(summary):
    table = make_table(
        [
            summary("a", "+---", weights_hash="w1"),
            summary("a", "++--", weights_hash="w1"),
            summary("a", "+++-", weights_hash="w2"),
            summary("a", "++++", weights_hash="w1", seed=1),
        ]
    )
    assert list(table["success"]) == [1.0, 0.75, 0.5]


def test_a_row_shows_how_many_directions_its_latents_fill_where_that_was_measured(summary):
    rows = [summary("a", "++--", effective_rank=6.28), summary("b", "+---")]
    assert {row: text for row, text in readable(make_table(rows))[["row", "effective rank"]].to_numpy()} == {
        "a": "6.3",
        "b": "-",
    }
    assert "effective rank" not in readable(make_table(rows[1:]))


def test_a_row_names_its_planner_with_the_evaluations_of_a_plan(summary):
    rows = [summary("a", "++--", evaluations_per_plan=256.4), summary("b", "+---", evaluations_per_plan=993.0)]
    rows[0]["settings"] = rows[0]["settings"] | {"planner": {"_target_": "wmbench.planning.cem.CEM"}}
    rows[1]["settings"] = rows[1]["settings"] | {"planner": {"_target_": "planning.X", "optimizer": "TwoPointsDE"}}
    table = to_markdown(make_table([*rows, summary("random", "----", evaluations_per_plan=0.0)]))
    assert [line.split(" | ")[6] for line in table.splitlines()[2:]] == ["CEM, 256", "TwoPointsDE, 993", "-"]


def test_scores_of_whole_paths_are_shown_where_every_row_has_them(summary):
    scores = {name: 0.25 for name in NAMES}
    both = make_table([summary("a", "+++-", **scores), summary("b", "+---", **scores)])
    assert "| 0.25, 0.1, held, SPL [%] |" in to_markdown(both) and "| 25, 25, 25, 25 |" in to_markdown(both)
    assert list(both["held_low"]) == [0.25, 0.25]
    one = make_table([summary("a", "+++-", **scores), summary("b", "+---")])
    assert "held" not in to_markdown(one) and one["held"].notna().sum() == 1
    assert "held" not in make_table([summary("b", "+---")])


def test_a_floor_appears_once_whatever_the_planner(summary):
    first, second = summary("random", "+---"), summary("random", "+---")
    second["settings"] = second["settings"] | {"planner": {"num_samples": 7}}
    assert len(make_table([first, second])) == 1
    first["row"] = second["row"] = "a"
    assert len(make_table([first, second])) == 2


def test_rows_are_compared_with_the_best_trained_one_on_the_same_tasks(summary):
    rows = [
        summary("best", "+++++++-"),
        summary("worse", "-------+"),
        summary("random", "--------"),
        summary("x", "+", "o", "t2"),
    ]
    p = make_table(rows).set_index("row")["p_vs_best"]
    assert p["best"] == 1
    assert p["worse"] == pytest.approx(binomtest(1, 8).pvalue)
    assert np.isnan(p["random"])
    assert p["x"] == 1


def test_missing_floors_and_ceilings_are_named(summary):
    table = make_table([summary("a", "+-"), summary("random", "--"), summary("zero", "--")])
    assert [name for name, _ in missing_baselines(table)] == ["simulator"]


def test_the_table_is_written_for_machines_and_for_people(summary, tmp_path):
    table = make_table([summary("<a>", "+++-", parameters=1_600_000.0)])
    write_table(table, tmp_path / "out")
    read = pd.read_csv(tmp_path / "out" / "table.csv")
    assert list(read.columns[:6]) == ["row", "protocol", "success", "success_low", "success_high", "n_tasks"]
    assert read["success"][0] == 0.75
    assert "75.0% [10.0, 90.0]" in to_markdown(table) and "1.6 M" in to_markdown(table)
    assert "&lt;a&gt;" in to_html(table) and "<a>" not in to_html(table)


def test_a_row_names_the_limit_of_its_rounds(summary):
    rows = [summary("a", "++", max_rounds=20), summary("b", "+-"), summary("c", "--", max_steps=None)]
    lines = to_markdown(make_table(rows)).splitlines()[2:]
    assert "| demo (rounds <= 20) |" in lines[0]
    assert "| demo |" in lines[1]
    assert "| demo (rounds without limit) |" in lines[2]


def test_no_results_give_an_empty_table():
    assert len(make_table([])) == 0


def test_compare_cites_papers_only_when_asked_and_leaves_the_measured_table_as_it_is(summary, tmp_path, monkeypatch, capsys):
    compare = load_script("scripts/compare.py")
    for made in (summary("a", "+++-"), summary("b", "+---")):
        (Path(made["folder"]) / "summary.json").write_text(json.dumps(made))
    written = []
    for flags in ([], ["--published"]):
        monkeypatch.setattr("sys.argv", ["compare.py", str(tmp_path), *flags])
        compare.main()
        printed = capsys.readouterr().out
        assert ("DreamerV3" in printed) == bool(flags)
        assert (tmp_path / "published.csv").exists() == bool(flags)
        written.append({name: (tmp_path / name).read_text() for name in ("table.csv", "table.md", "table.html")})
    plain, cited = written
    assert plain["table.csv"] == cited["table.csv"]
    assert cited["table.md"].startswith(plain["table.md"]) and cited["table.html"].startswith(plain["table.html"])
    assert "DreamerV3" in cited["table.md"] and "DreamerV3" in cited["table.html"]


def test_results_of_other_settings_are_never_compared_and_the_table_says_in_what_they_differ(summary):
    plain, other = summary("a", "+++++++-"), summary("a", "-------+")
    other["settings"] = other["settings"] | {"agent": {"num_context": 1}}
    plain["settings"] = plain["settings"] | {"agent": {"num_context": 3}}
    table = make_table([plain, other])
    assert list(table["p_vs_best"]) == [1, 1] and list(table["conditions"]) == ["A", "B"]
    assert "A: num_context 3" in to_markdown(table) and "B: num_context 1" in to_markdown(table)


def test_what_changes_no_result_makes_no_other_conditions(summary):
    first, second = summary("a", "+++-"), summary("b", "+---")
    first["settings"] = first["settings"] | {"agent": {"memory_gb": 4.0}}
    second["settings"] = second["settings"] | {"agent": {"memory_gb": 1.0}}
    assert list(make_table([first, second])["conditions"]) == ["A", "A"]
    assert "conditions" not in to_markdown(make_table([first, second]))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"recipe": {"max_steps": 1500}}, {"recipe": {"max_steps": 2000}}),
        ({"predictor": {"depth": 3}}, {"predictor": {"depth": 6}}),
        ({"proprio": "none"}, {"proprio": "full"}),
        ({"arm": "native"}, {"arm": "matched"}),
        ({"data_hash": "d1"}, {"data_hash": "d2"}),
        ({"cache_dtype": "float16"}, {"cache_dtype": "int8"}),
        ({"step": 10}, {"step": 20}),
    ],
)
def test_rows_say_in_what_their_models_differ_besides_the_encoder(summary, first: dict, second: dict):
    table = make_table([summary("a", "++-", **first), summary("b", "+--", encoder="DINOv2", **second)])
    for words, facts in zip(table["differs_in"], (first, second), strict=True):
        (value,) = next(iter(facts.values())).values() if "recipe" in facts or "predictor" in facts else facts.values()
        assert words.endswith(f" {value}")
        assert words in to_markdown(table)


def test_a_floor_measured_at_another_frameskip_is_not_beside_a_row(summary):
    row, floor = summary("a", "++--"), summary("random", "+---", frameskip=1)
    row["frameskip"] = 5
    assert list(make_table([row, floor])["conditions"]) == ["A", "B"]
