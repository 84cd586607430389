"""The tables of a study say of every row, pair and contrast what its cells' tasks say."""

from pathlib import Path

import pandas as pd
import pytest
from pretend import save_pretended

from wmbench.study.grid import Study
from wmbench.study.runner import finished
from wmbench.study.tables import write_tables

CONTRASTS = [
    {"name": "one", "a": "a", "b": "b", "expect": "a > b", "question": "Does a plan better?"},
    {"name": "two", "a": "a", "b": "c", "expect": "a > b", "question": "Does a plan better than c?"},
]


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, pd.DataFrame]:
    """Of rows a and b with one and three training runs, each of which solves as many of four tasks as its seed."""
    made = Study(
        "two", tmp_path, {"a": "encoder=state", "b": "encoder=pixels"}, [1, 2, 3], {"closed": "x=1"}, contrasts=CONTRASTS
    )
    for run in ("a_s2", "b_s1", "b_s2", "b_s3", "simulator"):
        save_pretended(made.results_folder("closed") / run, run)
    write_tables(made, finished(made))
    return {path.stem: pd.read_csv(path) for path in tmp_path.glob("*.csv")}


def test_a_row_s_success_is_the_mean_over_its_runs_and_tasks(tables):
    table = tables["table"][tables["table"]["outcome"] == "success"].set_index("row")
    assert table["success"].to_dict() == {"a": 0.5, "b": 0.5, "simulator": 0.0}
    assert table["n_seeds"].to_dict() == {"a": 1, "b": 3, "simulator": 0}
    assert (table["n_tasks"] == 4).all()
    assert table["gap"].dropna().to_dict() == {"a": -0.5, "b": -0.5}
    others = tables["table"][tables["table"]["outcome"] != "success"]
    assert len(others) and others[["gap", "gap_low", "gap_high"]].isna().all(axis=None)  # it is a gap of success


def test_every_task_of_every_run_is_a_line(tables):
    outcomes = tables["outcomes"]
    assert len(outcomes) == 5 * 4
    solved = outcomes.groupby(["row", "seed"])["success"].sum()
    assert solved.to_dict() == {("a", 2): 2, ("b", 1): 1, ("b", 2): 2, ("b", 3): 3}
    assert outcomes[outcomes["row"] == "simulator"]["seed"].isna().all()


def test_a_contrast_of_too_few_runs_or_of_no_row_says_so(tables):
    verdicts = tables["contrasts"].set_index("name")
    assert verdicts["verdict"].to_dict() == {"one": "no claim", "two": "untested"}
    assert verdicts.loc["one", "difference"] == pytest.approx(0)


def test_every_cell_has_its_state(tables):
    states = tables["cells"].groupby("row")["state"].value_counts().to_dict()
    assert states[("b", "done")] == 3 and states[("a", "done")] == 1 and states[("a", "missing")] == 2
    assert states[("zero", "missing")] == 1
