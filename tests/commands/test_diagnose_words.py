"""How scripts/diagnose.py is typed."""

import pytest


@pytest.mark.parametrize("words", ["parts=[open_loop,ranking]", "parts=all", "parts=probes"])
def test_parts_are_typed_as_a_name_or_a_list(typed, words: str):
    assert typed(f"diagnose model_name=maze {words}").code == 0


def test_a_glob_is_one_job_that_sees_all_of_its_runs(typed):
    assert typed("diagnose model_name='study_*'").value("model_name") == "study_*"


def test_a_setting_of_planning_alone_is_refused(typed):
    assert "unknown key 'num_videos'" in typed("diagnose model_name=maze num_videos=3").error
