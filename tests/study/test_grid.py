"""The grid of a study: its cells, its shards and its command lines."""

from pathlib import Path

import pytest

from wmbench.study.grid import Cell, Study

TWO = {
    "name": "two",
    "seeds": [3, 5],
    "rows": {"a": "encoder=state", "b": "encoder=lewm_small arm=matched"},
    "evaluations": {"closed": "protocol=bench", "open": "protocol=bench_open planner=icem"},
    "floors": ["zero"],
}
CONTRAST = {"name": "one", "a": "a", "b": "c", "expect": "a > b", "evaluation": "late", "question": "Is it?"}


def study(**changed):
    return Study.of(TWO | changed, Path("studies/two"))


def test_every_row_seed_and_evaluation_is_a_cell_and_so_is_every_floor():
    assert len(study().cells) == 2 * 2 * 2 + 2
    assert study().cells[0] == Cell("zero", None, "closed")
    assert study().cells[-1] == Cell("b", 5, "open")


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_make_every_cell_once_and_a_run_in_one_of_them(count):
    shards = [study().shard(f"{number}/{count}") for number in range(1, count + 1)]
    assert sorted(str(cell) for shard in shards for cell in shard) == sorted(map(str, study().cells))
    runs = [{cell.run for cell in shard} for shard in shards]
    assert sum(map(len, runs)) == len(set().union(*runs)) == 5


@pytest.mark.parametrize("which", ["0/2", "3/2", "2", "a/b", "-1/2"])
def test_what_is_no_shard_is_refused(which):
    with pytest.raises(ValueError, match=f"shard \\({which}\\) must be one of several, such as shard=2/4"):
        study().shard(which)


def test_a_sweep_trains_the_seeds_of_a_row_under_names_of_their_own():
    words = study(train="wandb=disabled").train_command("b", [3, 5])
    assert words[:5] == ["train.py", "-m", "wandb=disabled", "encoder=lewm_small", "arm=matched"]
    assert {"seed=3,5", "model_name=b_s${seed}", "env.data=studies/two/data.h5"} < set(words)


def test_other_words_of_an_evaluation_lead_to_another_folder():
    other = study(evaluations={"closed": "protocol=bench seed=1"})
    assert study().results_folder("closed") != other.results_folder("closed")


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"seeds": [1, 1]}, r"study.seeds \(\[1, 1\]\) must be different whole numbers"),
        ({"seeds": []}, "study.seeds is empty"),
        ({"rows": {"a b": "encoder=state"}}, "study.rows: 'a b' must be a name"),
        ({"rows": {"zero": "encoder=state"}}, "study.rows: zero names a floor"),
        ({"floors": ["luck"]}, "study.floors: unknown luck; known: random, zero, simulator"),
        ({"seed": 1}, "study has no seed; known: .*seeds"),
        (
            {"rows": "encoder=state"},
            r"study.rows \('encoder=state'\) must be a group of names, each with words of a command",
        ),
        ({"rows": {"a": None}}, r"study.rows: a \(None\) must be words of a command line, quotes closed"),
        ({"evaluations": {"a": "x='"}}, r'study.evaluations: a \("x=\'"\) must be words of a command line, quotes closed'),
        ({"train": ["a=1"]}, r"study.train: train \(\['a=1'\]\) must be words of a command line"),
        ({"name": "../other"}, "study.name: '../other' must be a name of letters, digits"),
        ({"seeds": 3}, r"study.seeds \(3\) must be a list"),
        ({"contrasts": [CONTRAST | {"expect": "a >= b"}]}, "contrast one: expect is 'a >= b', must be one of"),
        ({"contrasts": ["one"]}, "contrast 'one' must be a group of settings: name, a, b, expect, question"),
    ],
)
def test_a_study_that_cannot_work_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        study(**changed)


def test_floors_play_only_the_evaluations_that_they_can():
    assert [cell.evaluation for cell in study(floors_in=["open"]).cells if cell.seed is None] == ["open"]
    with pytest.raises(ValueError, match=r"study.floors_in: unknown adam; known: closed, open"):
        study(floors_in=["adam"])


def test_a_study_says_what_it_lacks():
    with pytest.raises(ValueError, match="study lacks rows"):
        Study.of({name: value for name, value in TWO.items() if name != "rows"}, Path())


def test_contrasts_that_no_cell_can_test_are_told_before_anything_runs():
    assert study(contrasts=[CONTRAST]).notes == ["contrast one stays untested: the study has no c and no late"]
    assert study(contrasts=[CONTRAST | {"b": "zero", "evaluation": "open"}]).notes == []
