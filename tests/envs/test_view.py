"""Facts about environment and pixels: read from manifests old and new, and compared."""

from dataclasses import replace

import pytest

from wmbench.envs.mazes import Maze
from wmbench.envs.physics import build_model
from wmbench.envs.rendering import WarpRenderer
from wmbench.envs.vector import PointMazes
from wmbench.envs.view import EnvSpec, View

# What collections wrote before appearance and driver had names.
OLDER = {"env": "point_maze", "maze": ["###", "#.#", "###"], "renderer": "warp", "render_lag": False, "image_size": 64}


def test_facts_newer_than_a_manifest_have_their_defaults():
    assert View.from_manifest(OLDER, "maze.h5") == View("warp", 64, render_lag=False, appearance="clean")
    assert EnvSpec.from_manifest(OLDER, "maze.h5") == EnvSpec("point_maze", ("###", "#.#", "###"), 2, 4, 0.5)


def test_a_manifest_says_more_than_the_defaults():
    view = View.from_manifest(OLDER | {"appearance": "dark", "driver": "llvmpipe"}, "maze.h5")
    assert (view.appearance, view.driver) == ("dark", "llvmpipe")


@pytest.mark.parametrize("missing", ["renderer", "image_size", "render_lag"])
def test_a_fact_that_a_manifest_lacks_is_named_with_the_manifest(missing: str):
    manifest = {key: value for key, value in OLDER.items() if key != missing}
    with pytest.raises(ValueError, match=rf"^maze\.h5 does not say its {missing}; "):
        View.from_manifest(manifest, "maze.h5")
    with pytest.raises(ValueError, match=r"^maze\.h5 does not say its maze; "):
        EnvSpec.from_manifest({}, "maze.h5")


def test_differences_are_told_in_words_and_the_same_facts_have_none():
    view = View("egl", 224, render_lag=False)
    assert view.differences(replace(view)) == []
    other = View("warp", 64, render_lag=False, appearance="dark")
    assert view.differences(other) == [
        "renderer egl instead of warp",
        "image_size 224 instead of 64",
        "appearance clean instead of dark",
    ]


def test_another_driver_of_the_same_renderer_is_no_difference():
    assert View("egl", 8, False, driver="llvmpipe").differences(View("egl", 8, False, driver="NVIDIA")) == []


def test_a_renderer_names_the_device_that_draws_which_is_the_one_asked_for():
    assert WarpRenderer(build_model(Maze("umaze")), 8).driver.split()[0] in ("cpu", "cuda:0")
    assert WarpRenderer(build_model(Maze("umaze")), 8, device="cpu").driver.split()[0] == "cpu"
    assert WarpRenderer(build_model(Maze("umaze")), 8, device="mps").driver.split()[0] == "cpu"
    with pytest.raises(ValueError, match="cannot draw on device=cuda:63"):
        WarpRenderer(build_model(Maze("umaze")), 8, device="cuda:63")


def test_a_probe_frame_tells_ways_of_drawing_apart():
    same, again, dark = (PointMazes("umaze", "warp", 16, appearance=look).probe() for look in ("clean", "clean", "all"))
    assert same == again != dark
