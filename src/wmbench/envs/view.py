"""The facts that data, run and result share: where a model acts (EnvSpec) and what it sees (View)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


class Facts:
    """Facts that can be compared one by one."""

    def differences(self, other: "Facts") -> list[str]:
        """Each fact that differs, in words: `renderer egl instead of warp` where the other has warp."""
        names = [f.name for f in fields(self) if f.compare]  # type: ignore[arg-type]
        pairs = [(name, getattr(self, name), getattr(other, name)) for name in names]
        return [f"{name} {own} instead of {others}" for name, own, others in pairs if own != others]


@dataclass(frozen=True)
class EnvSpec(Facts):
    """Where a model acts. The sizes are PointMaze's, the only environment there is so far.

    Args:
        maze: the rows of the map.
        proprio_dim: x, y [m], vx, vy [m/s].
        success_radius: a goal is reached nearer than this [m].
    """

    name: str
    maze: tuple[str, ...]
    action_dim: int = 2
    proprio_dim: int = 4
    success_radius: float = 0.5

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any], where: str) -> "EnvSpec":
        """What a data set's manifest or a run's provenance says; `where` names it in the error.

        Raises:
            ValueError: it has no maze.
        """
        _require(manifest, ("maze",), where)
        rows = manifest["maze"]
        is_map = isinstance(rows, list | tuple) and all(isinstance(row, str) for row in rows)
        if not is_map or len(set(map(len, rows))) != 1:
            raise ValueError(f"{where} says a maze that is none: {str(rows)[:60]}; correct it by hand")
        return cls(manifest.get("env", "point_maze"), tuple(rows))


@dataclass(frozen=True)
class View(Facts):
    """What a model sees.

    Args:
        image_size: side of the square frames [pixels].
        render_lag: the ball is drawn one 0.01 s sub-step late, as in the published frames.
        appearance: what differs from the usual look, as `appearance.Appearance` writes it.
        goal_appearance: of goals' frames, where it is another one.
        driver: the device behind the renderer, such as llvmpipe or cuda:0, None where nobody wrote it down. It is told
            and not compared: on another device the same renderer differs by roundings, far less than another renderer.
        probe: the hash of a frame (PointMazes.probe), which says whether it differs at all; likewise.
    """

    renderer: str
    image_size: int
    render_lag: bool
    appearance: str = "clean"
    goal_appearance: str | None = None
    driver: str | None = field(default=None, compare=False)
    probe: str | None = field(default=None, compare=False)

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any], where: str) -> "View":
        """What a data set's manifest or a run's provenance says; facts newer than the file have their defaults.

        Raises:
            ValueError: it lacks one of the older facts; `where` names it in the error.
        """
        _require(manifest, ("renderer", "image_size", "render_lag"), where)
        return cls(**{f.name: manifest[f.name] for f in fields(cls) if f.name in manifest})


def _require(manifest: Mapping[str, Any], names: tuple[str, ...], where: str) -> None:
    if missing := [name for name in names if manifest.get(name) is None]:
        raise ValueError(f"{where} does not say its {', '.join(missing)}; add what is missing to it by hand")
