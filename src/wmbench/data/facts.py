"""What training must know of its data, asked before it starts: an hour later it would be too late."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from wmbench.data.episodes import LOOKED_AT, EpisodeSet
from wmbench.data.official import PUBLISHED
from wmbench.envs.maze_sets import RANDOM, maze_of
from wmbench.envs.mazes import CELL_OFFSET, Maze
from wmbench.envs.rendering import RENDERERS, resolve


def complete(
    episodes: EpisodeSet, *, name: str, maze: str | Sequence[Any], renderer: str, render_lag: bool, **_: Any
) -> list[str]:
    """Take what the manifest does not say from the configuration (conf/env), so that planning finds it in the run.

    Returns:
        What the user should know, one sentence each: what was taken, and what looks odd.

    Raises:
        ValueError: a manifest whose facts cannot be, or data that nothing can be learned from.
    """
    if name != PUBLISHED["env"]:
        raise ValueError(f"env.name ({name!r}) must be {PUBLISHED['env']}: wmbench has no other environment")
    if renderer not in RENDERERS:
        raise ValueError(f"env.renderer ({renderer!r}) must be one of {', '.join(RENDERERS)}")
    if maze != RANDOM:
        Maze(maze)
    _check_varied(episodes)
    notes, where = [], f"the manifest of {episodes.path}"
    missing = [key for key in ("maze", "renderer", "render_lag") if episodes.manifest.get(key) is None]
    given = {"maze": maze, "renderer": resolve(renderer) if "renderer" in missing else None, "render_lag": render_lag}
    if missing:
        taken = ", ".join(f"env.{key}={given[key]}" for key in missing)
        notes.append(f"{where} does not say its {', '.join(missing)}; planning will use the configuration's {taken}")
    manifest: dict[str, Any] = (
        {"env": name} | episodes.manifest | {key: given[key] for key in missing} | {"image_size": episodes.image_size}
    )
    try:
        maze_there = maze_of(manifest["maze"])
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{where} says no maze: {error}") from None
    manifest["maze"] = list(maze_there.rows)
    if manifest["renderer"] not in (*RENDERERS, PUBLISHED["renderer"]):
        raise ValueError(f"{where} says renderer {manifest['renderer']!r}; it must be one of {', '.join(RENDERERS[1:])}")
    if not isinstance(manifest["render_lag"], bool):
        raise ValueError(f"{where} says render_lag {manifest['render_lag']!r}; it must be true or false")
    episodes.manifest = manifest
    if isinstance(maze_there, Maze) and (outside := _share_outside(maze_there, episodes.state[:, :2])) > 0.01:
        notes.append(f"{outside:.0%} of the states in {episodes.path} are outside its maze or in walls; is the maze right?")
    if (largest := float(np.abs(episodes.action).max())) > 1.001:
        notes.append(f"actions in {episodes.path} reach {largest:.3g}; the environment clips them to [-1, 1]")
    return notes


def _check_varied(episodes: EpisodeSet) -> None:
    """Refuse pictures that are all the same, or actions that are: training would end well and know nothing."""
    episode = np.unique(np.linspace(0, len(episodes) - 1, LOOKED_AT).astype(int))
    last = (episodes.ep_len[episode] - 1) // episodes.store_every * episodes.store_every
    frames = np.concatenate([episodes.frames(np.zeros_like(episode), episode), episodes.frames(last, episode)])
    if len(frames) > 1 and (frames == frames[0]).all():
        raise ValueError(
            f"{len(frames)} frames from all over {episodes.path} are one and the same picture; collect it again"
        )
    if len(episodes.action) > 1 and (episodes.action == episodes.action[0]).all():
        raise ValueError(f"all actions in {episodes.path} are the same; a world model needs data in which they vary")


def _share_outside(maze: Maze, position: Float[ndarray, "rows 2"]) -> float:
    """Fraction of the positions [m] that are in a wall's cell or off the map."""
    cell = np.clip(np.floor(position + CELL_OFFSET + 0.5), 0, np.array(maze.walls.shape) - 1)  # the border is all wall
    w, h = cell.astype(int).T
    return float(maze.walls[w, h].mean())
