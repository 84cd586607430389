"""Frames of one maze under any appearance: the scene that an episode draws, its rendering, and the sensor."""

# mujoco's names come from a compiled module that pyright cannot read.
# pyright: reportAttributeAccessIssue=false

from typing import Any

import mujoco
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from wmbench.envs.appearance import SENSOR, Appearance
from wmbench.envs.mazes import Maze
from wmbench.envs.rendering import Renderer, Scene, make_renderer
from wmbench.envs.sensor import spoil
from wmbench.envs.stage import Stage

KEPT = 4  # renderers; patterns of another strength need another one


class Painter:
    """Draws the ball at positions; makes a renderer when an appearance is first asked for, and keeps it.

    Args:
        model: of the physics. What only a sensor changes is drawn from it, as the usual look is.
    """

    def __init__(self, maze: Maze, model: mujoco.MjModel, renderer: str, image_size: int, device: str = "auto"):
        self._maze, self._model, self._kind, self._size, self._device = maze, model, renderer, image_size, device
        self._made: dict[tuple[Any, ...], tuple[Renderer, Stage | None]] = {}

    def renderer(self, appearance: Appearance) -> Renderer:
        return self._ready(appearance)[0]

    def close(self) -> None:
        self._made.clear()

    def frames(
        self,
        position: Float[ndarray, "B 2"],
        appearance: Appearance,
        seed: int,
        episode: Int[ndarray, " B"],
        step: Int[ndarray, " B"],
        walls: Scene | None = None,
    ) -> UInt8[ndarray, "B h w 3"]:
        """Draw frames of these episodes at these env steps.

        Args:
            walls: where each frame has them, if not where the maze has them; of the usual scene only.
        """
        renderer, stage = self._ready(appearance)
        if not len(position):
            return renderer.frames(position)
        frames = renderer.frames(position, stage.scenes(appearance, seed, episode, step) if stage else walls)
        if set(SENSOR) & set(appearance.names):
            for b, (k, t) in enumerate(zip(episode.tolist(), step.tolist(), strict=True)):
                frames[b] = spoil(frames[b], appearance.values_at(seed, k, t), seed, k, t)
        return frames

    def _ready(self, appearance: Appearance) -> tuple[Renderer, Stage | None]:
        """The renderer of an appearance's scenes, and its stage where they are not the usual one."""
        has_stage = bool(set(appearance.names) - set(SENSOR))
        key = ("stage", *Stage.key(appearance)) if has_stage else ("usual",)
        if key not in self._made:
            if len(self._made) > KEPT:
                self._made.clear()
            stage = Stage(self._maze, appearance) if has_stage else None
            model, has_shadows = (stage.model, stage.has_shadows) if stage else (self._model, False)
            self._made[key] = make_renderer(self._kind, model, self._size, has_shadows, self._device), stage
        return self._made[key]
