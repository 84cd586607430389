"""What a study fixes before its first run, and what is told of a change after its first result."""

import json
from pathlib import Path

import pytest

from wmbench.study.grid import Study
from wmbench.study.lock import changes, lock_now

RESULT = {"tasks_hash": "a1", "data_hash": "d1", "finished": "2026-11-27T04:00:00+00:00"}
CONTRAST = {"name": "one", "a": "a", "b": "b", "expect": "a > b", "question": "Does a plan better?"}


def study(folder: Path, **changed) -> Study:
    known = {"name": "two", "seeds": [1, 2], "rows": {"a": "encoder=state", "b": "encoder=pixels"}}
    return Study.of(known | {"evaluations": {"closed": "protocol=demo"}, "contrasts": [CONTRAST]} | changed, folder)


def test_a_lock_is_the_same_as_long_as_nothing_is_changed(tmp_path):
    first = lock_now(study(tmp_path), [])
    assert lock_now(study(tmp_path), []) == first == json.loads((tmp_path / "lock.json").read_text())
    assert first["changes"] == [] and first["first_result"] is None


def test_what_is_changed_before_the_first_result_is_no_change(tmp_path):
    before = lock_now(study(tmp_path), [])
    after = lock_now(study(tmp_path, seeds=[1, 2, 3]), [])
    assert after["changes"] == [] and after["hash"] != before["hash"]


def test_what_is_changed_after_the_first_result_is_told_with_both_hashes(tmp_path):
    before = lock_now(study(tmp_path), [RESULT])
    other = {**CONTRAST, "expect": "b > a"}
    after = lock_now(study(tmp_path, contrasts=[other]), [RESULT])
    assert [change["what"] for change in after["changes"]] == [{"contrasts": [before["contrasts"], after["contrasts"]]}]
    assert (after["locked"], after["first_result"]) == (before["locked"], RESULT["finished"])
    assert lock_now(study(tmp_path, contrasts=[other]), [RESULT])["changes"] == after["changes"]  # told once
    assert [sentence.partition(" (seen ")[0] for sentence in changes(after)] == ["contrasts changed after the first result"]


def test_a_setting_of_the_protocol_is_locked_with_it(tmp_path):
    before = lock_now(study(tmp_path), [])
    after = lock_now(study(tmp_path, evaluations={"closed": "protocol=demo protocol.max_steps=45"}), [])
    assert before["protocol"] != after["protocol"] and before["rows"] == after["rows"]


def test_tasks_that_become_known_with_the_first_result_are_no_change(tmp_path):
    lock_now(study(tmp_path), [])
    after = lock_now(study(tmp_path), [RESULT])
    assert after["tasks"] == ["a1"] and after["changes"] == []
    other = lock_now(study(tmp_path), [RESULT, {**RESULT, "tasks_hash": "a2"}])
    assert other["changes"][0]["what"] == {"tasks": [["a1"], ["a1", "a2"]]}


def test_a_row_that_is_made_later_from_another_collection_is_no_change_and_other_data_are(tmp_path):
    lock_now(study(tmp_path), [RESULT])
    both = lock_now(study(tmp_path), [RESULT, {**RESULT, "data_hash": "d2"}])
    assert both["data"] == ["d1", "d2"] and both["changes"] == []
    other = lock_now(study(tmp_path), [{**RESULT, "data_hash": "d3"}])
    assert other["changes"][0]["what"] == {"data": [["d1", "d2"], ["d3"]]}


@pytest.mark.parametrize("words", ["protocol=nosuch", "protocol=demo planner.num_elitse=3"])
def test_an_evaluation_that_cannot_be_played_is_named_before_anything_runs(tmp_path, words):
    with pytest.raises(ValueError, match=rf"study.evaluations: closed \({words}\): ") as refused:
        lock_now(study(tmp_path, evaluations={"closed": words}), [])
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "lock.json").exists()
