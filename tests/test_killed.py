"""kill -9 and full disks, anywhere in collecting, training and planning: whatever goes on ends with the same numbers."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import LOOP, begin, end, numbers, quick
from in_process import refuse_here, run_here


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the undisturbed loop leaves, played in this process, which imports what children then need not."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        quick(patch)
        for command in LOOP:
            run_here(folder, command)
        yield numbers(folder)


def assert_same(folder: Path, expected: dict[str, Any]) -> None:
    found = numbers(folder)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    assert not list(folder.rglob(".*-*")) and not (folder / "maze.h5.progress").exists()


@pytest.mark.parametrize("moments", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_the_loop_killed_at_any_moment_ends_as_if_it_had_not_been(moments: int, expected: dict[str, Any], tmp_path: Path):
    """A loop is killed and taken up again until a moment lies behind its end; then the next one begins in a new folder."""
    rng, killed, loops, seconds = np.random.default_rng(moments), 0, 0, 3.0
    while killed < moments:
        folder, loops = tmp_path / f"loop{loops}", loops + 1
        folder.mkdir()
        while (took := end(begin(folder), folder, rng.uniform(0, seconds))) is None:
            killed += 1
        seconds = max(took, 1.0)
        assert_same(folder, expected)
    print(f"{killed} kills in {loops} loops of {seconds:.1f} s of processor time")


@pytest.mark.parametrize("room", [0, 4])
def test_a_disk_that_fills_in_any_phase_costs_nothing_that_was_finished(room: int, expected: dict[str, Any], tmp_path: Path):
    """Full after so many files have reached it."""
    for command in LOOP:
        with pytest.MonkeyPatch.context() as patch:
            left, fsync = iter(range(room)), os.fsync

            def fill(handle: int, left: Iterator[int] = left, fsync: Any = fsync) -> None:
                if next(left, None) is None:
                    raise OSError(28, "No space left on device")
                fsync(handle)

            patch.setattr(os, "fsync", fill)
            assert "No space left on device" in refuse_here(tmp_path, command)
        run_here(tmp_path, command)
    assert_same(tmp_path, expected)
