"""What training asks of its data before it starts: the facts that planning needs, and data that teach something."""

import json
import re
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pytest

from wmbench.data import episodes as storage
from wmbench.data.episodes import Episodes
from wmbench.data.facts import complete
from wmbench.data.official import recorded_path
from wmbench.envs.mazes import MAPS
from wmbench.envs.view import EnvSpec, View

ENV: dict[str, Any] = {"name": "point_maze", "maze": "medium", "renderer": "warp", "render_lag": True, "data": "unread"}
TOLD = {"maze": list(MAPS["large"]), "renderer": "egl", "render_lag": False}


def saying(episodes: Episodes, **manifest: Any) -> Episodes:
    """The same file with a manifest of these facts alone."""
    with h5py.File(episodes.path, "r+") as file:
        file.attrs["manifest"] = json.dumps(manifest)
    return Episodes(episodes.path)


def test_facts_that_a_file_does_not_tell_are_taken_from_the_configuration_with_a_note(numbered_episodes: Callable):
    episodes = saying(numbered_episodes())
    taken = "env.maze=medium, env.renderer=warp, env.render_lag=True"
    note = complete(episodes, **ENV)[0]
    assert re.search(rf"{episodes.path} does not say its maze, renderer, render_lag; .*{taken}", note)
    assert View.from_manifest(episodes.provenance, "") == View("warp", 8, render_lag=True)
    assert EnvSpec.from_manifest(episodes.provenance, "") == EnvSpec("point_maze", MAPS["medium"])


def test_facts_that_a_file_tells_stay(numbered_episodes: Callable):
    episodes = saying(numbered_episodes(), **TOLD)
    assert not [note for note in complete(episodes, **ENV) if "does not say" in note]
    assert View.from_manifest(episodes.provenance, "") == View("egl", 8, render_lag=False)
    assert EnvSpec.from_manifest(episodes.provenance, "").maze == MAPS["large"]


@pytest.mark.parametrize("missing", TOLD)
def test_only_what_is_missing_is_taken(numbered_episodes: Callable, missing: str):
    episodes = saying(numbered_episodes(), **{key: value for key, value in TOLD.items() if key != missing})
    assert f"does not say its {missing}; " in complete(episodes, **ENV)[0]
    wanted = TOLD | {missing: list(MAPS["medium"]) if missing == "maze" else ENV[missing]}
    assert {key: episodes.manifest[key] for key in TOLD} == wanted


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ({"renderer": "mujoco"}, "says renderer 'mujoco'; it must be one of egl, osmesa, warp"),
        ({"maze": 5}, "says no maze"),
        ({"maze": ["###", "###"]}, "says no maze: a maze needs a free cell"),
        ({"render_lag": "no"}, "says render_lag 'no'; it must be true or false"),
    ],
)
def test_facts_that_cannot_be_are_refused_with_their_file(numbered_episodes: Callable, lie: dict, message: str):
    episodes = saying(numbered_episodes(), **TOLD | lie)
    with pytest.raises(ValueError, match=f"the manifest of {episodes.path} {message}"):
        complete(episodes, **ENV)


def test_the_same_picture_everywhere_is_refused(numbered_episodes: Callable):
    episodes = numbered_episodes()
    storage.map_columns(episodes.path, "r+")["pixels"][:] = 0
    with pytest.raises(ValueError, match=rf"6 frames from all over {episodes.path} are one and the same picture"):
        complete(Episodes(episodes.path), **ENV)


def test_the_same_action_everywhere_is_refused(numbered_episodes: Callable):
    episodes = numbered_episodes()
    storage.map_columns(episodes.path, "r+")["action"][:] = 0.5
    with pytest.raises(ValueError, match=rf"all actions in {episodes.path} are the same"):
        complete(Episodes(episodes.path), **ENV)


def test_states_in_walls_and_actions_that_are_clipped_are_told(numbered_episodes: Callable):
    """Half of the steps lie in the U-maze's cell (1, 1), whose centre is (0.8, 0.8); the others off the map."""
    episodes = numbered_episodes(num_episodes=2, length=12)
    columns = storage.map_columns(episodes.path, "r+")
    columns["state"][:, :2] = np.repeat([[0.8, 0.8], [9.0, 0.8]], 12, axis=0)
    assert complete(Episodes(episodes.path), **ENV) == [
        f"50% of the states in {episodes.path} are outside its maze or in walls; is the maze right?",
        f"actions in {episodes.path} reach 11; the environment clips them to [-1, 1]",
    ]
    columns["state"][:, :2], columns["action"][:] = 0.8, columns["action"] / 12
    assert complete(Episodes(episodes.path), **ENV) == []


def test_the_data_of_a_run_are_found_from_another_folder(
    numbered_episodes: Callable, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
):
    path = numbered_episodes().path
    monkeypatch.chdir(path.parent)
    provenance = Episodes(path.name).provenance
    assert provenance["path"] == path.name
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert recorded_path(provenance) == str(path)
    path.unlink()
    assert recorded_path(provenance) == path.name  # moved: as it was given, for the error to name
    assert recorded_path({"path": "older.h5"}) == "older.h5" and recorded_path({}) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "mars"}, r"env\.name \('mars'\) must be point_maze"),
        ({"renderer": "pov"}, r"env\.renderer \('pov'\) must be one of auto, egl, osmesa, warp"),
        ({"maze": "nomaze"}, "unknown maze 'nomaze'; known: umaze"),
    ],
)
def test_settings_that_cannot_be_are_refused_also_where_the_data_tell_the_facts(
    numbered_episodes: Callable, given: dict, message: str
):
    with pytest.raises(ValueError, match=message):
        complete(saying(numbered_episodes(), **TOLD), **ENV | given)
