"""Collecting episodes: what lands in the file, and that processes, kills and restarts do not change it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import pytest
from in_process import refuse_here, run_here
from omegaconf import DictConfig, OmegaConf

from wmbench.data import collection
from wmbench.data import episodes as storage
from wmbench.data.episodes import Episodes
from wmbench.envs.mazes import Maze
from wmbench.envs.physics import Physics
from wmbench.envs.vector import PointMazes
from wmbench.envs.view import View
from wmbench.files import exclusive

ROOT = Path(__file__).parents[2]
SIZE = 48  # pixels; the ball is 2.4 across
E, T = 82, 10  # episodes (11 chunks, the last of 2) and their steps
SETTINGS = {"num_episodes": E, "episode_length": T, "image_size": SIZE, "env.renderer": "warp"}


def typed(output: Path, **changes: Any) -> str:
    settings = SETTINGS | changes | {"output": output}
    return " ".join(["scripts/collect.py env=point_maze", *(f"{key}={value}" for key, value in settings.items())])


def command(output: Path, **changes: Any) -> list[str]:
    return [sys.executable, *typed(output, **changes).split()]


def collect(output: Path, **changes: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(output, **changes), cwd=ROOT, capture_output=True, text=True)


def config(output: Path, **changes: Any) -> DictConfig:
    env = {"name": "point_maze", "maze": "umaze", "renderer": "warp", "render_lag": False}
    settings = {"num_episodes": 10, "episode_length": T, "image_size": 16, "store_every": 1, "seed": 0} | changes
    settings = {"appearance": "clean"} | settings
    return OmegaConf.create(settings | {"env": env | settings.pop("env", {}), "output": str(output)})


def manifest_of(cfg: DictConfig) -> dict[str, Any]:
    return collection.make_manifest(OmegaConf.to_container(cfg), {"wmbench": None})  # type: ignore[arg-type]


def collect_here(output: Path, backwards: bool = False, **changes: Any) -> Episodes:
    """A collection's steps one by one in this process, its chunks from first to last or backwards."""
    cfg = config(output, **changes)
    manifest = manifest_of(cfg)
    collection.open_partial(output, manifest)
    collection.start_worker(manifest)
    chunks = [range(k, min(k + collection.CHUNK, cfg.num_episodes)) for k in range(0, cfg.num_episodes, collection.CHUNK)]
    order = chunks[::-1] if backwards else chunks
    digests = {chunk.start: collection.collect_chunk(storage.partial_path(output), chunk, manifest) for chunk in order}
    collection.finish(output, manifest, [digests[chunk.start] for chunk in chunks])
    return Episodes(output)


def same_contents(one: Path, other: Path) -> bool:
    with h5py.File(one) as a, h5py.File(other) as b:
        return all((a[name][:] == b[name][:]).all() for name in storage.COLUMNS)


def ball_centre(frame: np.ndarray) -> np.ndarray:
    """Mean (column, row) of green, weighted by how green a pixel is: wall and floor are never green."""
    red, green, blue = np.moveaxis(frame.astype(float), -1, 0)
    weight = np.clip(green - np.maximum(red, blue), 0, None)
    row, column = np.indices(weight.shape)
    return np.array([(weight * column).sum(), (weight * row).sum()]) / weight.sum()


@dataclass
class Killed:
    """What a collection had done when its main process was killed."""

    output: Path
    chunks: int
    error: str
    inode: int
    children: list[psutil.Process]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killed]:
    """A collection by one worker whose main process was killed after its first chunk."""
    output = tmp_path_factory.mktemp("collected") / "deep" / "episodes.h5"
    progress = output.with_name("episodes.h5.progress")
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    # Its own session, so that no signal reaches the tests.
    process = subprocess.Popen(command(output, num_workers=1), cwd=ROOT, start_new_session=True, **silent)
    while not (progress.exists() and progress.read_text().count("\n") > 1):  # the manifest, then a line a chunk
        assert process.poll() is None
        time.sleep(0.002)
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(FileNotFoundError) as error:
        Episodes(output)
    chunks = len(progress.read_text().splitlines()) - 1
    with progress.open("a") as file:
        file.write('[16, "torn')  # a line that a kill has cut short
    yield Killed(output, chunks, str(error.value), storage.partial_path(output).stat().st_ino, children)
    for child in children:
        if child.is_running():
            child.kill()


@pytest.fixture(scope="module")
def collected(killed: Killed) -> Path:
    """The killed collection's data set, finished by two workers."""
    found = collect(killed.output, num_workers=2)
    assert found.returncode == 0, found.stderr
    assert f"{killed.output}: {E} episodes" in found.stdout and "drawn by warp" in found.stdout
    return killed.output


def test_columns_have_the_documented_shapes_and_types(collected: Path):
    with h5py.File(collected) as file:
        found = {name: (column.shape, column.dtype) for name, column in file.items()}
        np.testing.assert_array_equal(file["ep_len"][:], [T] * E)
        np.testing.assert_array_equal(file["ep_offset"][:], np.arange(E) * T)
    assert found == {
        "pixels": ((E * T, SIZE, SIZE, 3), np.uint8),
        "action": ((E * T, 2), np.float32),
        "state": ((E * T, 4), np.float32),
        "proprio": ((E * T, 4), np.float32),
        "ep_len": ((E,), np.int64),
        "ep_offset": ((E,), np.int64),
    }


def test_the_manifest_tells_how_the_file_came_about(collected: Path):
    manifest = Episodes(collected).manifest
    told = {key: manifest[key] for key in ("env", "maze", "seed", "num_episodes", "renderer", "render_lag", "store_every")}
    umaze = ["#####", "#...#", "###.#", "#...#", "#####"]
    assert told == {
        "env": "point_maze",
        "maze": umaze,
        "seed": 0,
        "num_episodes": E,
        "renderer": "warp",
        "render_lag": False,
        "store_every": 1,
    }
    assert json.loads(storage.manifest_path(collected).read_text()) == manifest
    view = View.from_manifest(manifest, "")
    assert view.driver.split()[0] in ("cpu", "cuda:0")
    assert view.probe == PointMazes(umaze, "warp", view.image_size).probe()


def test_nothing_but_the_data_and_its_manifest_is_left(collected: Path):
    assert {path.name for path in collected.parent.iterdir()} == {"episodes.h5", "episodes.manifest.json"}


def test_each_action_leads_from_its_state_to_the_next(collected: Path):
    episodes = Episodes(collected)
    state, action = episodes.state.reshape(E, T, 4), episodes.action.reshape(E, T, 2)
    physics = Physics(Maze("umaze"))
    after = physics.step(state[:, :-1].reshape(-1, 4), action[:, :-1].reshape(-1, 2)).reshape(E, T - 1, 4)
    assert (physics.maze.clearance(state[..., :2]) < 0.1).any()  # walls were hit
    np.testing.assert_allclose(after, state[:, 1:], rtol=0, atol=1e-4)  # float32 states, stiff contacts
    assert (np.abs(after - state[:, :-1]).max(axis=(1, 2)) > 0.1).all()
    np.testing.assert_array_equal(episodes.proprio, episodes.state)


def test_starts_and_actions_are_random_within_their_limits_and_differ_by_episode(collected: Path):
    episodes = Episodes(collected)
    start, action = episodes.state[::T], episodes.action
    assert Maze("umaze").clearance(start[:, :2]).min() > 0.2 - 1e-6
    assert len(np.unique(start, axis=0)) == E
    assert np.abs(action).max() <= 1 and np.abs(action).max() > 0.98
    assert len(np.unique(action, axis=0)) == E * T
    np.testing.assert_allclose(action.mean(0), 0, atol=4 * 0.577 / (E * T) ** 0.5)  # uniform in [-1, 1]
    np.testing.assert_allclose(action.std(0), 0.577, rtol=0.06)


def test_pixels_show_the_ball_where_the_state_says(collected: Path):
    """Reference, section 1.7: the frame's side is 8.065 m about world (3, 3); column grows with x, row with y."""
    episodes = Episodes(collected)
    shown = np.stack([ball_centre(frame) for frame in episodes.pixels])
    expected = (SIZE - 1) / 2 + SIZE / 8.065 * (episodes.state[:, :2] + 1.2 - 3)
    seen = Maze("umaze").clearance(episodes.state[:, :2]) > 0.15  # nearer, the drawn ball of 0.2 m dips under a wall
    assert seen.sum() > 400
    np.testing.assert_allclose(shown[seen], expected[seen], rtol=0, atol=0.5)


def test_a_kill_and_the_number_of_workers_do_not_change_the_data(collected: Path, tmp_path: Path):
    """One worker, killed, then two, against this process from the last episodes to the first, undisturbed."""
    alone = collect_here(tmp_path / "alone.h5", backwards=True, num_episodes=E, image_size=SIZE)
    assert alone.hash == Episodes(collected).hash
    assert same_contents(tmp_path / "alone.h5", collected)


def test_a_killed_collection_is_not_a_data_set_yet_and_goes_on_in_its_file(killed: Killed, collected: Path):
    assert 1 <= killed.chunks < 11  # some were done, and not all
    assert f"{killed.output} is not complete yet" in killed.error
    assert collected.stat().st_ino == killed.inode


def test_a_killed_collection_leaves_no_process_behind(killed: Killed):
    assert killed.children
    _, alive = psutil.wait_procs(killed.children)
    assert not alive


def test_two_kills_that_cut_a_line_of_progress_short_do_no_harm(tmp_path: Path):
    """What a resumed run appends must not run into the torn line."""
    output = tmp_path / "torn.h5"
    manifest = manifest_of(config(output))
    collection.open_partial(output, manifest)
    progress = collection.progress_path(output)
    with progress.open("a") as file:
        file.write('[0, "first"]\n[8, "to')
    assert collection.open_partial(output, manifest) == {0: "first"}
    with progress.open("a") as file:
        file.write('[8, "second"]\n')  # as main() does
    assert collection.open_partial(output, manifest) == {0: "first", 8: "second"}


def test_a_complete_collection_says_so_and_is_left_alone(collected: Path):
    before = collected.stat().st_mtime_ns
    out = run_here(ROOT, typed(collected, num_workers=1))  # the number of workers is no part of the data
    assert f"{collected} is complete already" in out
    assert collected.stat().st_mtime_ns == before


def test_other_settings_on_the_same_output_are_refused_and_named(collected: Path):
    before = collected.stat().st_mtime_ns
    error = refuse_here(ROOT, typed(collected, seed=5, store_every=4))
    assert error.startswith(f"error: {collected} holds other data")
    assert "seed 0 instead of 5" in error and "store_every 1 instead of 4" in error
    assert "output=" in error
    assert collected.stat().st_mtime_ns == before


def test_data_without_a_manifest_are_not_overwritten(collected: Path, tmp_path: Path):
    shutil.copy(collected, tmp_path / "told.h5")
    with h5py.File(tmp_path / "told.h5", "r+") as file:
        del file.attrs["manifest"]
    error = refuse_here(ROOT, typed(tmp_path / "told.h5"))
    assert error == f"error: {tmp_path}/told.h5 has no manifest that says what it holds; give another output= or delete it"


def test_an_unfinished_collection_is_not_thrown_away_for_other_settings(tmp_path: Path):
    output = tmp_path / "half.h5"
    manifest = manifest_of(config(output))
    collection.open_partial(output, manifest)
    with collection.progress_path(output).open("a") as file:
        file.write('[0, "first"]\n')
    with pytest.raises(ValueError, match=rf"{output}"):
        collection.open_partial(output, manifest_of(config(output, seed=1)))
    assert collection.open_partial(output, manifest) == {0: "first"}


def test_a_seed_gives_the_same_episodes_again_and_another_seed_others(tmp_path: Path):
    first = collect_here(tmp_path / "first.h5", seed=4)
    again = collect_here(tmp_path / "again.h5", seed=4)
    other = collect_here(tmp_path / "other.h5", seed=5)
    assert first.hash == again.hash != other.hash
    assert same_contents(first.path, again.path)
    assert (first.state[::T] != other.state[::T]).all()
    assert (first.action != other.action).all()


def test_the_first_episodes_do_not_depend_on_how_many_follow(tmp_path: Path):
    few = collect_here(tmp_path / "few.h5", num_episodes=3)
    many = collect_here(tmp_path / "many.h5", num_episodes=10)
    np.testing.assert_array_equal(many.state[: 3 * T], few.state)
    np.testing.assert_array_equal(many.pixels[: 3 * T], few.pixels)


@pytest.mark.parametrize("store_every", [3, 5, 10])
def test_storing_every_nth_frame_keeps_those_frames_and_all_states(tmp_path: Path, store_every: int):
    every = collect_here(tmp_path / "every.h5")
    some = collect_here(tmp_path / "some.h5", store_every=store_every)
    np.testing.assert_array_equal(some.state, every.state)
    np.testing.assert_array_equal(some.action, every.action)
    kept = np.reshape(every.pixels, (10, T, 16, 16, 3))[:, ::store_every].reshape(-1, 16, 16, 3)
    np.testing.assert_array_equal(some.pixels, kept)


def test_the_lag_moves_the_ball_back_by_a_hundredth_of_a_second_but_not_at_an_episodes_start(tmp_path: Path):
    episodes = collect_here(tmp_path / "lag.h5", num_episodes=8, image_size=SIZE, env={"render_lag": True})
    shown = np.stack([ball_centre(frame) for frame in episodes.pixels])
    free = Maze("umaze").clearance(episodes.state[:, :2]) > 0.25
    offset = (shown - (SIZE - 1) / 2) / (SIZE / 8.065) + 3 - 1.2 - episodes.state[:, :2]  # m
    is_start = np.isin(np.arange(len(shown)), episodes.ep_offset)
    for rows, lag in ((free & is_start, 0.0), (free & ~is_start, 0.01)):
        velocity = episodes.state[rows, 2:]
        assert (offset[rows] * velocity).sum() / (velocity**2).sum() == pytest.approx(-lag, abs=0.002)


def test_another_appearance_changes_pictures_alone_and_a_frame_does_not_depend_on_what_is_stored(tmp_path: Path):
    look = "wall_colour+ball_size+blur 0.1 changing"
    clean = collect_here(tmp_path / "clean.h5", num_episodes=3)
    every = collect_here(tmp_path / "every.h5", num_episodes=3, appearance=look)
    some = collect_here(tmp_path / "some.h5", num_episodes=2, appearance=look, store_every=5)
    for name in ("state", "action", "proprio"):
        np.testing.assert_array_equal(getattr(every, name), getattr(clean, name))
    assert (every.pixels != clean.pixels).any((1, 2, 3)).all()
    kept = np.reshape(every.pixels, (3, T, 16, 16, 3))[:2, ::5].reshape(-1, 16, 16, 3)
    np.testing.assert_array_equal(some.pixels, kept)
    assert View.from_manifest(every.manifest, "").appearance == look


def test_data_of_another_appearance_are_not_taken_for_these_and_older_data_are_clean(tmp_path: Path):
    clean = manifest_of(config(tmp_path / "some.h5"))
    older = {name: value for name, value in clean.items() if name != "appearance"}
    collection.refuse_other(tmp_path / "some.h5", older, clean)
    with pytest.raises(ValueError, match=r"holds other data .appearance 'clean' instead of 'all 0.1'"):
        collection.refuse_other(tmp_path / "some.h5", older, clean | {"appearance": "all 0.1"})


@pytest.mark.parametrize("name", ["num_episodes", "episode_length", "image_size", "store_every"])
def test_a_number_below_one_is_refused_by_name(tmp_path: Path, name: str):
    with pytest.raises(ValueError, match=rf"{name} \(0\) must be positive"):
        manifest_of(config(tmp_path / "none.h5", **{name: 0}))


def test_a_disk_that_is_too_small_is_an_error_before_anything_is_written(tmp_path: Path):
    output = tmp_path / "huge.h5"
    manifest = manifest_of(config(output, num_episodes=10**9, episode_length=1000, image_size=1024))
    with pytest.raises(ValueError, match=rf"{output} needs .* GB, the disk has .* free; lower num_episodes or image_size"):
        collection.open_partial(output, manifest)
    assert not list(tmp_path.iterdir())


def test_random_play_has_the_published_statistics():
    """Golden README: states of the published 2,000 episodes of 100 frames. Random starts and random actions, as here."""
    physics, rngs = Physics(Maze("umaze")), [np.random.RandomState(k) for k in range(1000)]
    start = np.stack([physics.maze.sample_state(rng) for rng in rngs])
    action = np.stack([rng.uniform(-1, 1, (99, 2)) for rng in rngs])
    states = np.concatenate([start[:, None], physics.rollout(start, action)], axis=1).reshape(-1, 4)
    np.testing.assert_allclose(states.mean(0), (1.813, 1.938, -0.004, -0.020), rtol=0, atol=0.08)
    np.testing.assert_allclose(states.std(0), (1.006, 0.963, 1.680, 1.932), rtol=0.03)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"store_every": T + 1}, rf"store_every \({T + 1}\) must not exceed episode_length \({T}\)"),
        ({"seed": -1}, r"seed \(-1\) must be a whole number of at least 0"),
        ({"seed": None}, r"seed \(None\)"),
        ({"num_episodes": None}, r"num_episodes \(None\) must be positive"),
        ({"episode_length": 1.5}, r"episode_length \(1.5\) must be positive, a whole number"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_before_any_work(tmp_path: Path, settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        manifest_of(config(tmp_path / "none.h5", **settings))


def test_a_name_with_dots_has_a_manifest_of_its_own(tmp_path: Path):
    names = ("maze.h5", "maze.v1", "maze.v2", "maze.v1.2.h5")
    assert [storage.manifest_path(tmp_path / name).name for name in names] == [
        "maze.manifest.json",
        "maze.v1.manifest.json",
        "maze.v2.manifest.json",
        "maze.v1.2.manifest.json",
    ]


@pytest.mark.parametrize(("there", "wanted"), [("maze.h5", "maze"), ("maze.v1", "maze.v1.h5")])
def test_two_files_that_would_share_a_manifest_are_refused(tmp_path: Path, there: str, wanted: str):
    (tmp_path / there).touch()
    with pytest.raises(ValueError, match=rf"{wanted} would share .*manifest\.json with .*{there}; give another output="):
        collection.checked_output(str(tmp_path / wanted), None)


@pytest.mark.parametrize(("output", "workers"), [(None, 1), ("a.zip", 1), ("a.h5", -1)])
def test_outputs_and_processes_that_cannot_be_are_refused(output: str | None, workers: int):
    with pytest.raises(ValueError, match=r"output|num_workers"):
        collection.checked_output(output, workers)


def test_a_damaged_progress_file_is_named(tmp_path: Path):
    output = tmp_path / "half.h5"
    manifest = manifest_of(config(output))
    collection.open_partial(output, manifest)
    progress = collection.progress_path(output)
    progress.write_text(progress.read_text() + '[0, "first", {]\n')
    with pytest.raises(ValueError, match=rf"{progress} is damaged; delete it"):
        collection.open_partial(output, manifest)


def test_a_second_collection_of_one_file_is_told_of_the_first(tmp_path: Path):
    with exclusive(tmp_path / "maze.h5", ""):
        found = collect(tmp_path / "maze.h5", num_episodes=2)
    assert found.returncode == 1
    assert f"error: {tmp_path / 'maze.h5'} is in use by process {os.getpid()}" in found.stderr
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line_and_the_same_command_goes_on_when_there_is_room(tmp_path: Path):
    output = tmp_path / "maze.h5"
    limited = " ".join(command(output, num_episodes=8, num_workers=1))
    found = subprocess.run(["bash", "-c", f"ulimit -f 20; {limited}"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert found.returncode == 1, found.stderr
    errors = [line for line in found.stderr.splitlines() if line.startswith("error: ") or "Traceback" in line]
    assert len(errors) == 1 and errors[0].startswith(f"error: {output} cannot be written: File too large; make room or")
    run_here(ROOT, typed(output, num_episodes=8, num_workers=1))
    assert len(Episodes(output)) == 8
