"""kill -9 at random moments of collecting, training and planning: whatever goes on ends with the same numbers."""

from pathlib import Path

import numpy as np
import pytest
from forked import LOOP, begin, end, numbers, quick
from in_process import run_here


@pytest.mark.parametrize("moments", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_the_loop_killed_at_any_moment_ends_as_if_it_had_not_been(
    moments: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A loop is killed and taken up again until a moment lies behind its end; then the next one begins in a new folder."""
    quick(monkeypatch)
    rng, killed, loops = np.random.default_rng(moments), 0, 0
    (tmp_path / "whole").mkdir()
    for command in LOOP:  # in this process, which imports what the children then need not
        run_here(tmp_path / "whole", command)
    expected = numbers(tmp_path / "whole")
    (tmp_path / "timed").mkdir()
    seconds = end(begin(tmp_path / "timed"), tmp_path / "timed")
    assert seconds is not None
    while killed < moments:
        folder, loops = tmp_path / f"loop{loops}", loops + 1
        folder.mkdir()
        while end(begin(folder), folder, rng.uniform(0, seconds)) is None:
            killed += 1
        found = numbers(folder)
        assert found.keys() == expected.keys()
        assert [name for name in expected if found[name] != expected[name]] == []
        assert not list(folder.rglob(".*.tmp*")) and not (folder / "maze.h5.progress").exists()
    print(f"{killed} kills in {loops} loops of {seconds:.1f} s of processor time")
