"""What decides an outcome: which results may be compared, and in what the others differ."""

from dataclasses import replace

import pytest

from wmbench.evaluation.conditions import Conditions, in_words, varying
from wmbench.evaluation.source import source_version

CONDITIONS = Conditions(
    maze=["####", "#..#", "####"],
    frameskip=5,
    tasks="t1",
    protocol={"name": "demo", "check": "every_step"},
    max_steps=50,
    agent={"horizon": 7},
    planner={"_target_": "wmbench.planning.cem.CEM", "num_samples": 64},
    objective={"alpha": 0.0},
    seed=0,
    view={"renderer": "warp", "image_size": 64},
    precision="fp32",
    compile=False,
    code={"episodes": "e1", "planner": "p1"},
)
OTHERS = {
    "maze": ["#####", "#...#", "#####"],
    "frameskip": 1,
    "tasks": "t2",
    "protocol": {"name": "demo", "check": "last_step"},
    "max_steps": 45,
    "round_steps": 5,
    "agent": {"horizon": 6},
    "planner": {"_target_": "wmbench.planning.cem.CEM", "num_samples": 300},
    "objective": {"alpha": 0.1},
    "seed": 1,
    "view": {"renderer": "egl", "image_size": 64},
    "precision": "bf16",
    "compile": True,
    "code": {"episodes": "e2", "planner": "p1"},
}


@pytest.mark.parametrize("name", OTHERS)
def test_every_setting_that_matters_makes_other_conditions(name: str):
    other = replace(CONDITIONS, **{name: OTHERS[name]})
    assert other.hash != CONDITIONS.hash
    assert name == "round_steps" or [key.partition(".")[0] for key in CONDITIONS.differences(other)] == [name]


def test_a_floor_differs_in_nothing_that_does_not_reach_it():
    floor = replace(CONDITIONS, agent=None, planner=None, objective=None, view=None, precision=None, compile=None)
    floor = replace(floor, code={"episodes": "e1"})
    assert floor.differences(CONDITIONS) == {} == CONDITIONS.differences(floor)
    assert replace(floor, frameskip=1).differences(CONDITIONS) == {"frameskip": (1, 5)}


def test_numbers_that_are_equal_are_the_same_condition():
    assert replace(CONDITIONS, objective={"alpha": 0}).hash == CONDITIONS.hash


def test_what_varies_is_told_in_each_rows_own_words():
    rows = [{"planner._target_": "a.b.CEM", "lr": 0.1, "same": 1}, {"planner._target_": "a.b.GD", "lr": None, "same": 1}]
    assert [in_words(facts) for facts in varying(rows)] == ["planner CEM, lr 0.1", "planner GD, lr none"]


def test_a_fact_that_a_row_does_not_have_is_not_held_against_the_others():
    assert varying([{"a": 1, "b": 2}, {"b": 2}]) == [{}, {}]


def test_the_version_of_code_tells_programs_apart_and_not_their_comments(tmp_path, monkeypatch):
    def version(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        return source_version(name)

    monkeypatch.syspath_prepend(tmp_path)
    first = version("first_module", '"""A module."""\n\ndef f(x):\n    """Double."""\n    return 2 * x  # twice\n')
    assert version("second_module", "def f(x):\n    return 2*x\n") == first
    assert version("third_module", "def f(x):\n    return 3*x\n") != first


def test_the_version_of_code_follows_imports():
    assert source_version("wmbench.planning.cem") != source_version("wmbench.planning.icem")
    assert source_version("wmbench.planning.agent", "wmbench.planning.cem") != source_version("wmbench.planning.cem")
