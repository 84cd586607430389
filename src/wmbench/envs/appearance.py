"""Declared factors of appearance: what may look different in a frame, how far, and which value an episode draws.

Physics never see any of this. One scale s says how far every factor may go: up to 0.05 is the training range, up to 0.1
the near test range and up to 0.2 the far one. Beyond 0.05 an episode's deviation lies outside the range below its own, so
that a test never draws what training has shown. A draw depends on the seed, the episode and the factor's name alone.
"""

import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from typing import Any

import numpy as np
import yaml
from gymnasium import spaces

from wmbench.files import shipped

LEVELS = {"training": 0.05, "near": 0.1, "far": 0.2}  # the largest scale of each
TASK_SEED = 2**32  # of the looks of tasks; no data set's, whose seeds are smaller
GOAL_STEP = 10_000  # a goal's picture is taken at another moment: other noise, and what moves is elsewhere
PERIOD = (40, 120)  # env steps in which a factor that changes goes to and fro


@dataclass(frozen=True)
class Factor:
    """One thing that may look different.

    meaning: of a value, with its unit.
    reach: how far from the neutral value an episode may be, at the largest scale of each of LEVELS.
    neutral: the value that changes nothing.
    is_signed: deviations go both ways.
    is_whole: values are whole numbers.
    chance: that an episode has it at all.
    """

    meaning: str
    reach: tuple[float, float, float]
    neutral: float = 0.0
    is_signed: bool = False
    is_whole: bool = False
    chance: float = 1.0

    @property
    def limits(self) -> tuple[float, float]:
        """Smallest and largest value that there is."""
        return self.neutral - (self.reach[-1] if self.is_signed else 0.0), self.neutral + self.reach[-1]

    def band(self, scale: float) -> tuple[float, float]:
        """Smallest and largest deviation at a scale."""
        beyond = self.reach[level_of(scale) - 1] if level_of(scale) else 0.0
        return beyond, float(np.interp(scale, (0.0, *LEVELS.values()), (0.0, *self.reach)))


# The camera's angles stop short of 20 degrees: seen from above, a maze that is turned further is another task.
FACTORS = {
    "floor_texture": Factor("how much of a drawn pattern shows on the floor, 0 to 1", (0.5, 0.75, 1.0)),
    "wall_texture": Factor("how much of a drawn pattern shows on the walls, 0 to 1", (0.5, 0.75, 1.0)),
    "wall_colour": Factor("turn of the walls' hue, in full circles", (0.1, 0.2, 0.5), is_signed=True),
    "ball_colour": Factor("turn of the ball's hue, in full circles", (0.1, 0.2, 0.5), is_signed=True),
    "ball_size": Factor("the drawn ball's radius, in usual ones", (0.1, 0.25, 0.4), neutral=1.0, is_signed=True),
    "light_position": Factor("angle between lamp and vertical [degrees]", (10.0, 25.0, 45.0)),
    "light_diffuse": Factor("how much dimmer and warmer (colder below 0) the lamp is", (0.2, 0.4, 0.8), is_signed=True),
    "side_light": Factor("share of the light that comes from one side, with shadows", (0.2, 0.4, 0.8), chance=0.5),
    "camera_tilt": Factor("lean of the camera along y [degrees]", (4.5, 9.0, 18.0), is_signed=True),
    "camera_azimuth": Factor("lean of the camera along x [degrees]", (4.5, 9.0, 18.0), is_signed=True),
    "camera_roll": Factor("turn of the camera [degrees]", (4.5, 9.0, 18.0), is_signed=True),
    "camera_zoom": Factor("height of the camera, in usual ones", (0.05, 0.1, 0.2), neutral=1.0, is_signed=True),
    "clutter": Factor(
        "flat things that lie on the floor, of the ball's colour in the far range", (3.0, 6.0, 8.0), is_whole=True
    ),
    "distractors": Factor(
        "other balls that roll about, of the ball's colour in the far range", (1.0, 2.0, 2.0), is_whole=True
    ),
    "background": Factor("how much of another colour or pattern shows outside of the maze, 0 to 1", (0.3, 0.6, 1.0)),
    "noise": Factor("standard deviation of a pixel's noise, in full ranges", (0.02, 0.05, 0.1)),
    "blur": Factor("standard deviation of the blur, in 224ths of a frame's side", (0.5, 1.0, 2.0)),
    "jpeg": Factor("loss of JPEG: 100 minus its quality", (40.0, 70.0, 90.0), is_whole=True),
    "patch": Factor("share of the frame that a grey patch hides", (0.05, 0.1, 0.2)),
}
SENSOR = ("noise", "blur", "jpeg", "patch")  # what is done to a frame, not to the scene
STILL = ("floor_texture", "wall_texture", "background")  # drawn once, also where the other factors change


def level_of(scale: float) -> int:
    """0 in the training range, 1 in the near one, 2 in the far one."""
    return sum(scale > largest for largest in list(LEVELS.values())[:-1])


@dataclass(frozen=True)
class Draw:
    """A factor's value in one episode: neutral + sign * deviation, the deviation going to and fro where it changes."""

    neutral: float
    sign: float
    band: tuple[float, float]
    share: float  # of the band
    phase: float = 0.0
    period: float = math.inf  # env steps

    def at(self, step: int) -> float:
        share = self.share if math.isinf(self.period) else 0.5 + 0.5 * math.sin(math.tau * (step / self.period + self.phase))
        return self.neutral + self.sign * (self.band[0] + share * (self.band[1] - self.band[0]))


@dataclass(frozen=True)
class Appearance:
    """Which factors differ from the usual look, and how far.

    Args:
        factors: names in FACTORS, in its order.
        scale: s, above 0 and at most 0.2.
        is_changing: factors go to and fro within an episode, else they keep their values through it.
        values: factors that have this value in every episode.

    Raises:
        ValueError: an unknown factor, a scale or a value outside its range.
    """

    factors: tuple[str, ...] = ()
    scale: Any = LEVELS["training"]
    is_changing: Any = False
    values: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_names([*self.factors, *self.values])
        is_number = isinstance(self.scale, int | float) and not isinstance(self.scale, bool)
        if not is_number or not 0 < self.scale <= LEVELS["far"]:
            levels = ", ".join(f"{name} up to {largest:g}" for name, largest in LEVELS.items())
            raise ValueError(f"appearance.scale ({self.scale}) must be above 0 and at most {LEVELS['far']:g} ({levels})")
        if not isinstance(self.is_changing, bool):
            raise ValueError(f"appearance.changing ({self.is_changing!r}) must be true or false")
        for name, value in self.values.items():
            _check_value(name, value)

    @classmethod
    def of(cls, given: Any, scale: float = LEVELS["training"]) -> "Appearance":
        """Read an appearance as conf/appearance gives it, as `str` writes it (`all 0.1 changing`), or a set of values.

        Args:
            scale: of a text that says none.
        """
        if isinstance(given, Appearance):
            return given
        if isinstance(given, str):
            return _parse(given, scale)
        if not isinstance(given, Mapping):
            raise ValueError(f"appearance ({given!r}) must be a name ({', '.join(presets())}) or factors with their values")
        if not set(given) <= {"factors", "scale", "changing", "values"}:
            return cls(values={str(name): value for name, value in given.items()})
        factors, values = given.get("factors") or (), given.get("values") or {}
        if not isinstance(values, Mapping):
            raise ValueError(
                f"appearance.values ({values!r}) must be factors with their values, such as {{camera_tilt: 12}}"
            )
        return cls(_factors_of(factors), given.get("scale", cls.scale), given.get("changing", False), dict(values))

    def __str__(self) -> str:
        """`clean`, `all 0.1`, `textured+ball_size 0.05 changing` or `clean camera_tilt=12`; `of` reads it."""
        return self._text

    @cached_property
    def _text(self) -> str:  # which every frame's draw is looked up by
        words = [next((name for name, factors in presets().items() if factors == self.factors), "+".join(self.factors))]
        if self.factors:
            words += [f"{self.scale:.10g}"] + ["changing"] * self.is_changing
        return " ".join(words + [f"{name}={float(self.values[name]):.10g}" for name in FACTORS if name in self.values])

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every factor that differs, drawn or given."""
        return tuple(name for name in FACTORS if name in self.factors or name in self.values)

    @property
    def level(self) -> int:
        return level_of(self.scale) if self.factors else 0

    def __hash__(self) -> int:
        return hash(self._text)

    @lru_cache(4096)  # noqa: B019 (an appearance is a value; few are made)
    def draw(self, seed: int, episode: int) -> dict[str, Draw]:
        """What an episode looks like."""
        return {name: self._draw_one(name, draws_of(seed, episode, name)) for name in self.names}

    def values_at(self, seed: int, episode: int, step: int) -> dict[str, float]:
        """The values of all factors that differ, at an env step of an episode."""
        return {name: draw.at(step) for name, draw in self.draw(seed, episode).items()}

    def _draw_one(self, name: str, rng: np.random.Generator) -> Draw:
        factor = FACTORS[name]
        if name in self.values:
            return Draw(float(self.values[name]), 0.0, (0.0, 0.0), 0.0)
        share, phase, period = rng.random(), rng.random(), rng.uniform(*PERIOD)
        sign = 1.0 if rng.random() < 0.5 or not factor.is_signed else -1.0
        if rng.random() >= factor.chance:
            return Draw(factor.neutral, 0.0, (0.0, 0.0), 0.0)
        low, high = factor.band(self.scale)
        if factor.is_whole:  # those outside the range below, each as likely
            high = math.floor(high + 1e-9)
            choices = range(math.floor(low) + (low > 0), high + 1) or [high]
            low = high = float(choices[int(share * len(choices))])
        if name in STILL:  # one strength for all episodes, who differ by their pattern
            low = high
        if self.is_changing and low < high:
            return Draw(factor.neutral, sign, (low, high), share, phase, period)
        return Draw(factor.neutral, sign, (low, high), share)


def variation_space() -> spaces.Dict:
    """The values that factors may have, as gymnasium's spaces."""
    return spaces.Dict(
        {
            name: spaces.Discrete(int(factor.limits[1]) + 1)
            if factor.is_whole
            else spaces.Box(*factor.limits, (), np.float32)  # type: ignore[arg-type]
            for name, factor in FACTORS.items()
        }
    )


def draws_of(seed: int, episode: int, *words: str) -> np.random.Generator:
    """A generator that seed, episode and words name, the same in any process and batch."""
    return np.random.default_rng((zlib.crc32(" ".join(words).encode()), int(seed), int(episode)))


@cache
def presets() -> dict[str, tuple[str, ...]]:
    """Names of conf/appearance with their factors, clean first."""
    files = sorted(shipped("conf").joinpath("appearance").glob("*.yaml"), key=lambda path: (path.stem != "clean", path.stem))
    return {path.stem: _factors_of(yaml.safe_load(path.read_text())["factors"]) for path in files}


def _parse(text: str, scale: float) -> Appearance:
    names, *words = text.split() or [""]
    known = presets()
    factors = [factor for name in names.split("+") for factor in known.get(name, [name])]
    is_changing, values = False, {}
    for word in words:
        name, is_value, value = word.partition("=")
        if word == "changing":
            is_changing = True
        else:
            try:
                number = float(value if is_value else word)
            except ValueError:
                raise ValueError(
                    f"appearance {text!r}: {word!r} is no scale, no factor=value and not `changing`; such as 'all 0.1'"
                ) from None
            if is_value:
                values[name] = number
            else:
                scale = number
    return Appearance(_factors_of(factors), scale, is_changing, values)


def _factors_of(names: Any) -> tuple[str, ...]:
    """Names without repetition, in the order of FACTORS."""
    if not isinstance(names, str | Iterable):
        raise ValueError(f"appearance.factors ({names!r}) must be a list of names, such as [ball_size,blur]")
    names = [names] if isinstance(names, str) else list(names)
    _check_names(names)
    return tuple(name for name in FACTORS if name in names)


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        if name not in FACTORS:
            known = f"appearances: clean, textured, lit, tilted, cluttered, distracted, all; factors: {', '.join(FACTORS)}"
            raise ValueError(f"unknown factor of appearance {name!r} (physics, such as the ball's own size, stay); {known}")


def _check_value(name: str, value: Any) -> None:
    factor = FACTORS[name]
    low, high = factor.limits
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not low - 1e-6 <= number <= high + 1e-6 or (factor.is_whole and not number.is_integer()):
        whole = "a whole number " if factor.is_whole else ""
        raise ValueError(f"{name} ({value}) must be {whole}from {low:g} to {high:g}: {factor.meaning}")


CLEAN = Appearance()
