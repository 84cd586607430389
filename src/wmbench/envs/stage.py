"""The scene of a maze with everything that an appearance may show, for drawing only: physics keep their own model.

A stage is one MuJoCo model for all frames. What differs between them is a scene: fields of the model, given per frame.
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo's bindings carry no type stubs.)

import colorsys
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from scipy.spatial.transform import Rotation

from wmbench.envs import textures
from wmbench.envs.appearance import FACTORS, Appearance, draws_of
from wmbench.envs.mazes import Maze
from wmbench.envs.physics import SUBSTEP_S, SUBSTEPS, build_model, maze_mjcf
from wmbench.envs.rendering import Scene

FIELDS = ("geom_pos", "geom_quat", "geom_size", "geom_rgba", "geom_matid")
FIELDS += ("cam_pos", "cam_quat", "light_dir", "light_diffuse", "light_active")
PICTURES = {"floor_texture": textures.coloured, "wall_texture": textures.grey, "background": textures.surrounding}
BANKS = tuple(PICTURES)
DETAILED = (*BANKS, "light_position", "side_light", "clutter", "distractors")

Fields = dict[str, ndarray]  # of the model, in one frame
Values = Mapping[str, float]  # of the factors that differ

NUM_CLUTTER, NUM_DISTRACTORS = (int(FACTORS[name].reach[-1]) for name in ("clutter", "distractors"))
FLOOR_Z = -0.1
FLOOR_SIDE = 80.0  # m
CELL = 4.0  # m of floor that the usual checker repeats after
AMBIENT, DIFFUSE = 1 / 3, 2 / 3  # light from everywhere and from the lamp; their sum is 1, where OpenGL would clamp it
BRIGHTER = 1.2  # than its own colour is an untextured surface, by the 0.4 + 0.8 of light in PointMaze
SIDE_ELEVATION = np.radians(35)
MAX_LEAN = 20.0  # of the camera, all directions taken together [degrees]
SPEEDS = (0.5, 1.0, 1.5)  # of distractors at each level [m/s]
REMEMBERED = 2048  # episodes whose details are kept
WALK = 64  # cells of a distractor's way, which it goes to and fro


class Stage:
    """The model that scenes of one maze are drawn from, with the patterns of an appearance.

    model: what renderers draw; its body and joints are those of the physics' model.
    """

    def __init__(self, maze: Maze, appearance: Appearance):
        self._maze = maze
        usual = build_model(maze)
        spec = mujoco.MjSpec.from_string(maze_mjcf(maze))
        spec.stat.extent = usual.stat.extent  # the camera's planes and the shadows' reach follow it
        spec.visual.headlight.active = 0
        self.has_shadows = "side_light" in appearance.names
        if self.has_shadows:  # which cost OpenGL on a CPU twice a frame's time; smooth edges would cost it again
            spec.visual.quality.shadowsize, spec.visual.quality.offsamples = 512, 0
        self._add_textures(spec, _floor_of(usual), appearance)
        self._add_things(spec)
        self.model = spec.compile()
        self.model.cam_pos[:] = usual.cam_pos
        geoms = [self.model.geom(k) for k in range(self.model.ngeom)]
        self._walls = np.array([g.id for g in geoms if g.type[0] == mujoco.mjtGeom.mjGEOM_BOX and not g.name])
        self._ball = self.model.geom("drawn_ball").id
        self._usual = {name: getattr(self.model, name).copy() for name in FIELDS}
        self._details: dict[tuple[int, int], dict[str, Any]] = {}

    @staticmethod
    def key(appearance: Appearance) -> tuple[Any, ...]:
        """What a stage depends on; it draws the scenes of every appearance with the same key."""
        names = [name for name in (*BANKS, "side_light") if name in appearance.names]
        strength = {name: draw.at(0) for name, draw in appearance.draw(0, 0).items() if name in BANKS}
        return (*names, *strength.values(), appearance.level if strength else 0)

    def scenes(self, appearance: Appearance, seed: int, episode: Int[ndarray, " B"], step: Int[ndarray, " B"]) -> Scene:
        """What the frames of these episodes show at these env steps."""
        scenes = [self._scene(appearance, seed, int(k), int(t)) for k, t in zip(episode, step, strict=True)]
        return {name: np.stack([scene[name] for scene in scenes]) for name in FIELDS}

    def _scene(self, appearance: Appearance, seed: int, episode: int, step: int) -> Fields:
        """Fields of one frame."""
        value, details, level = appearance.values_at(seed, episode, step), self._details_of(seed, episode), appearance.level
        scene = {name: usual.copy() for name, usual in self._usual.items()}
        self._paint(scene, value, details, level)
        self._light(scene, value, details)
        self._aim(scene, value)
        self._strew(scene, details["clutter"][: int(value.get("clutter", 0))], level)
        self._roll(scene, details["distractors"][: int(value.get("distractors", 0))], level, step)
        return scene

    def _details_of(self, seed: int, episode: int) -> dict[str, Any]:
        """What the values of an episode's factors leave open: which pattern, where from, which colours."""
        key = (seed, episode)
        if key not in self._details:
            if len(self._details) > REMEMBERED:
                self._details.clear()
            rng = {name: draws_of(seed, episode, name, "details") for name in DETAILED}
            details: dict[str, Any] = {name: int(rng[name].integers(1000)) for name in BANKS}
            details |= {name: rng[name].uniform(0, 2 * np.pi) for name in ("light_position", "side_light")}
            details["clutter"] = [self._draw_thing(rng["clutter"]) for _ in range(NUM_CLUTTER)]
            details["distractors"] = [self._draw_way(rng["distractors"]) for _ in range(NUM_DISTRACTORS)]
            self._details[key] = details
        return self._details[key]

    def _add_textures(self, spec: Any, usual: UInt8[ndarray, "h w 3"], appearance: Appearance) -> None:
        """Add the materials of each of BANKS that the appearance names: the usual one as number 0, then its patterns."""
        level, pixel = appearance.level, (np.arange(textures.SIZE) + 0.5) / textures.SIZE
        width, height = self._maze.walls.shape
        column, row = 0.5 + pixel * width, 0.5 + height - pixel * height  # metres; a picture begins at the largest y
        whole = pixel * CELL
        pictures = {
            "floor_texture": usual[_pixels(-row, usual)[:, None], _pixels(column, usual)[None]],
            "wall_texture": np.full((textures.SIZE, textures.SIZE, 3), 255, np.uint8),
            "background": usual[_pixels(whole, usual)[:, None], _pixels(whole, usual)[None]],
        }
        for bank, picture in pictures.items():
            repeat = FLOOR_SIDE / CELL if bank == "background" else 1.0
            self._add_material(spec, f"{bank} 0", picture, repeat)
            if bank in appearance.names:
                share = appearance.draw(0, 0)[bank].at(0)  # the same in every episode
                for number in range(textures.NUMBER[level]):
                    other = PICTURES[bank](level, number)
                    self._add_material(spec, f"{bank} {number + 1}", textures.mixed(picture, other, share), repeat)

    def _add_material(self, spec: Any, name: str, picture: UInt8[ndarray, "h w 3"], repeat: float) -> None:
        height, width, _ = picture.shape
        texture = spec.add_texture(name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, width=width, height=height, nchannel=3)
        texture.data = np.ascontiguousarray(picture).tobytes()
        material = spec.add_material(name=name, texrepeat=[repeat, repeat], specular=0.0)
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name

    def _add_things(self, spec: Any) -> None:
        """Add the floor of the maze, clutter, distractors and lights, which touch nothing."""
        world, geom = spec.worldbody, mujoco.mjtGeom
        nothing: dict[str, Any] = {"contype": 0, "conaffinity": 0, "rgba": [0, 0, 0, 0]}
        half = np.array(self._maze.walls.shape) / 2
        pos = [*(half + 0.5), FLOOR_Z + 0.002]
        world.add_geom(
            name="inside", type=geom.mjGEOM_PLANE, size=[*half, 1], pos=pos, material="floor_texture 0", **nothing
        )
        turned = [np.cos(0.5), 0, 0, np.sin(0.5)]  # not upright, or the compiler would take the turn for none
        for k in range(NUM_CLUTTER):
            shape = geom.mjGEOM_BOX if k % 2 else geom.mjGEOM_CYLINDER
            size = [0.2, 0.2, 5e-4] if k % 2 else [0.2, 5e-4, 0]
            world.add_geom(name=f"clutter {k}", type=shape, size=size, pos=[1, 1, 0], quat=turned, **nothing)
        for k in range(NUM_DISTRACTORS):
            world.add_geom(name=f"distractor {k}", type=geom.mjGEOM_SPHERE, size=[0.2, 0, 0], pos=[1, 1, 0], **nothing)
        for name, ambient, specular, has_shadow in (("lamp", AMBIENT, 0.1, 0), ("side", 0.0, 0.0, 1)):
            above = {"pos": [*(half + 0.5), 5], "dir": [0, 0, -1]}
            light = world.add_light(name=name, type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, **above)
            light.ambient, light.diffuse, light.specular = [ambient] * 3, [DIFFUSE] * 3, [specular] * 3
            light.castshadow = has_shadow

    def _paint(self, scene: Fields, value: Values, details: dict[str, Any], level: int) -> None:
        for name, geoms in (("wall", self._walls), ("ball", self._ball)):
            scene["geom_rgba"][geoms] = [*_turned(self._colour(name), value.get(f"{name}_colour", 0.0)), 1]
        scene["geom_size"][self._ball, 0] *= value.get("ball_size", 1.0)
        places = {"floor_texture": self._id("inside"), "wall_texture": self._walls, "background": self._id("floor")}
        for bank, geoms in places.items():
            if bank in value:
                number = 1 + details[bank] % textures.NUMBER[level]
                scene["geom_matid"][geoms] = self.model.material(f"{bank} {number}").id
        if {"floor_texture", "background"} & set(value):
            scene["geom_rgba"][self._id("inside")] = 1

    def _colour(self, name: str) -> tuple[float, float, float]:
        """The usual colour of wall or ball, as bright as PointMaze's light makes it."""
        rgba = self.model.material("wall").rgba if name == "wall" else self._usual["geom_rgba"][self._ball]
        red, green, blue = (float(part) * BRIGHTER for part in rgba[:3])
        return red, green, blue

    def _light(self, scene: Fields, value: Values, details: dict[str, Any]) -> None:
        lamp, side = self.model.light("lamp").id, self.model.light("side").id
        dimmer, share = value.get("light_diffuse", 0.0), value.get("side_light", 0.0)
        colour = 1 - abs(dimmer) * np.array([0.2, 0.5, 1.0])[:: 1 if dimmer > 0 else -1]
        scene["light_dir"][lamp] = _direction(np.radians(90 - value.get("light_position", 0.0)), details["light_position"])
        scene["light_diffuse"][lamp] = DIFFUSE * (1 - share) * colour
        scene["light_dir"][side] = _direction(SIDE_ELEVATION, details["side_light"])
        scene["light_diffuse"][side] = DIFFUSE * share / np.sin(SIDE_ELEVATION) * colour
        scene["light_active"][side] = share > 0

    def _aim(self, scene: Fields, value: Values) -> None:
        """Lean the camera around the maze's middle, which stays in the frame's."""
        lean = np.array([value.get("camera_tilt", 0.0), value.get("camera_azimuth", 0.0)])
        lean *= min(1.0, MAX_LEAN / max(np.linalg.norm(lean), 1e-9))
        turn = Rotation.from_rotvec(np.radians([*lean, 0.0]))
        x, y, height = self._usual["cam_pos"][0]
        scene["cam_pos"][0] = turn.apply([0, 0, height * value.get("camera_zoom", 1.0)]) + [x, y, 0]
        rolled = turn * Rotation.from_euler("z", value.get("camera_roll", 0.0), degrees=True)
        scene["cam_quat"][0] = rolled.as_quat(scalar_first=True)

    def _strew(self, scene: Fields, things: Sequence[Any], level: int) -> None:
        for k, (place, radius, turn, colour) in enumerate(things):
            geom = self._id(f"clutter {k}")
            scene["geom_pos"][geom] = [*place, FLOOR_Z + 0.004 + 0.001 * k]
            scene["geom_quat"][geom] = [np.cos(turn / 2), 0, 0, np.sin(turn / 2)]
            scene["geom_size"][geom, : 2 if k % 2 else 1] = radius
            scene["geom_rgba"][geom] = scene["geom_rgba"][self._ball] if level == 2 else [*colour, 1]

    def _roll(self, scene: Fields, balls: Sequence[Any], level: int, step: int) -> None:
        gone = SPEEDS[level] * step * SUBSTEPS * SUBSTEP_S % (2 * WALK)  # m; cells are 1 m wide
        gone = min(gone, 2 * WALK - gone)
        for k, (way, colour) in enumerate(balls):
            geom = self._id(f"distractor {k}")
            scene["geom_pos"][geom] = [*(np.interp(gone, np.arange(WALK + 1), way[:, axis]) for axis in (0, 1)), 0.0]
            scene["geom_size"][geom] = scene["geom_size"][self._ball]
            scene["geom_rgba"][geom] = scene["geom_rgba"][self._ball] if level == 2 else [*colour, 1]

    def _draw_thing(self, rng: np.random.Generator) -> tuple[ndarray, float, float, tuple[float, float, float]]:
        """Place [m], radius [m], turn and colour of a flat thing on the floor."""
        place = self._free_cells[rng.integers(len(self._free_cells))] + 1 + rng.uniform(-0.45, 0.45, 2)
        colour = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.3, 0.9), rng.uniform(0.3, 0.9))
        return place, rng.uniform(0.1, 0.3), rng.uniform(0, np.pi), colour

    def _draw_way(self, rng: np.random.Generator) -> tuple[Float[ndarray, "cells 2"], tuple[float, float, float]]:
        """A distractor's way through free cells [m], which turns back in dead ends only, and its colour."""
        way = [self._free_cells[rng.integers(len(self._free_cells))]]
        for _ in range(WALK):
            near = [way[-1] + d for d in ((1, 0), (0, 1), (-1, 0), (0, -1)) if not self._maze.walls[tuple(way[-1] + d)]]
            onward = [cell for cell in near if len(way) < 2 or (cell != way[-2]).any()] or near or way[-1:]
            way.append(onward[rng.integers(len(onward))])
        return np.array(way) + 1.0, _turned(self._colour("ball"), rng.uniform(0.25, 0.75))

    @cached_property
    def _free_cells(self) -> ndarray:
        return np.argwhere(~self._maze.walls)

    def _id(self, geom: str) -> int:
        return self.model.geom(geom).id


def _floor_of(model: mujoco.MjModel) -> UInt8[ndarray, "h w 3"]:
    """The usual floor's texture."""
    texture = model.texture("floor")
    size = int(texture.height[0]), int(texture.width[0]), 3
    return model.tex_data[: np.prod(size)].reshape(size).copy()


def _pixels(metres: Float[ndarray, " n"], usual: UInt8[ndarray, "h w 3"]) -> Int[ndarray, " n"]:
    """Rows or columns of the usual floor's texture at these places."""
    return np.floor(metres / CELL % 1 * len(usual)).astype(int)


def _turned(rgb: tuple[float, float, float], turn: float) -> tuple[float, float, float]:
    hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
    return colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)


def _direction(elevation: float, azimuth: float) -> Float[ndarray, "3"]:
    """Where light shines that comes from this height above the horizon."""
    return np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), -np.sin(elevation)])
