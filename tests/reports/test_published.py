"""Cited numbers: each with its source, apart from measured ones, and the rule by which a reproduction is judged."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from wmbench.reports.published import CAVEAT, HEADING, add_published, load_published, paper_row, published_markdown, verdict

PROTOCOLS = {path.stem for path in (Path(__file__).parents[2] / "conf" / "protocol").glob("*.yaml")}
CITED = [row for _, row in load_published().iterrows()]


@pytest.mark.parametrize("row", CITED, ids=lambda row: f"{row['row']}-{row['planner']}-{row['success']}")
def test_a_cited_number_has_a_paper_a_setting_and_a_protocol_of_ours_or_none(row):
    assert 0 <= row["success"] <= 1
    assert re.search(r"arXiv \d{4}\.\d{5}$", row["paper"]) and row["setting"]
    assert row["protocol"] in {"", *PROTOCOLS}
    assert row["table"] or row["notes"].startswith("second hand")


def test_the_papers_own_encoders_solve_whole_tasks_of_fifty():
    table = load_published()
    papers = table[table["paper"].str.startswith("DINO-WM")]
    solved = (50 * papers["success"]).round(9)
    assert (solved == solved.round()).all()
    encoders = solved[papers["table"] == "2"]  # its encoder comparison; Table 1 has other world models
    assert encoders.tolist() == [47, 49, 48, 49]
    assert papers["row"][encoders.index].tolist() == ["R3M", "ResNet-18", "DINO CLS", "DINO patch (DINO-WM)"]


def test_layouts_that_training_did_not_have_are_no_row_of_our_protocols():
    """DINO-WM's Table 3: another environment, where patches solve 41 of 50 and R3M and ResNet 20."""
    table = load_published()
    unseen = table[table["setting"].str.contains("WallRandom")]
    assert (unseen["protocol"] == "").all()
    assert (50 * unseen.set_index("row")["success"]).round(9).to_dict() == {
        "IRIS": 3,
        "DreamerV3": 38,
        "R3M": 20,
        "ResNet": 20,
        "DINO CLS": 32,
        "DINO-WM": 41,
    }


def test_the_interval_is_the_one_that_the_number_of_tasks_implies():
    """Wilson's interval of 47 of 50, worked out by hand in the statistics' own tests."""
    table = load_published()
    row = table[(table["row"] == "R3M") & (table["table"] == "2")].iloc[0]
    assert (row["success_low"], row["success_high"]) == pytest.approx((0.838, 0.979), abs=6e-4)


def test_a_number_of_unknown_tasks_has_no_interval():
    table = load_published()
    unknown = table[table["n_tasks"].isna()]
    assert len(unknown) and unknown[["success_low", "success_high"]].isna().to_numpy().all()
    assert "| 12.0% | unknown |" in published_markdown()


def test_what_is_to_be_reproduced_is_the_papers_own_row():
    row = paper_row()
    assert (row["success"], row["n_tasks"], row["protocol"], row["table"]) == (0.98, 50, "dino_wm", "2")


def test_cited_rows_stand_under_their_own_heading_after_the_measured_ones(tmp_path):
    (tmp_path / "table.md").write_text("| measured |\n")
    (tmp_path / "table.html").write_text("<table>measured</table>\n")
    add_published(tmp_path)
    for name, heading in (("table.md", f"## {HEADING}"), ("table.html", f"<h2>{HEADING}</h2>")):
        before, after = (tmp_path / name).read_text().split(heading)
        assert "measured" in before and "IRIS" not in before
        assert "TD-MPC2" in after and "do not compare" in after
    assert "p vs best" not in published_markdown() and CAVEAT in published_markdown()
    written = pd.read_csv(tmp_path / "published.csv")
    assert len(written) == len(CITED) and np.isclose(written["success_low"][0], 0.604, atol=6e-4)


@pytest.mark.parametrize(
    ("solved", "tasks", "expected"),
    [
        (49, 50, "consistent with the paper"),
        (50, 50, "consistent with the paper"),
        (39, 50, "not consistent with the paper"),
        (0, 16, "not consistent with the paper"),
        (19, 20, "too few tasks to tell"),  # holds 0.98, but is 0.227 wide
        (16, 16, "consistent with the paper"),
        (15, 15, "too few tasks to tell"),
        (0, 15, "too few tasks to tell"),
        (490, 500, "consistent with the paper"),
        (480, 500, "not consistent with the paper"),
    ],
)
def test_the_verdict_on_a_rate_of_98_percent(solved: int, tasks: int, expected: str):
    assert verdict(0.98, solved, tasks) == expected
