"""Damaged files of every kind, and what is no file, end in an error of ours, within bounds of time and memory."""

from pathlib import Path

import pytest
from fuzz import corpus, faults


@pytest.mark.parametrize("cases", [4, pytest.param(400, marks=pytest.mark.slow)])
def test_a_damaged_file_ends_in_an_error_of_ours_whatever_the_damage(cases: int, tmp_path: Path):
    readers = corpus(tmp_path)
    assert len(readers) * 400 > 10_000
    assert list(faults(readers, cases)) == []
