"""Videos of episodes: the plan next to reality, what the model imagined, and the goal."""

from collections.abc import Callable
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

from wmbench.envs.physics import SUCCESS_RADIUS
from wmbench.envs.rendering import pixel_of
from wmbench.envs.vector import PointMazes
from wmbench.evaluation.episode_loop import Outcome
from wmbench.evaluation.evaluate import Plans
from wmbench.evaluation.tasks import Tasks
from wmbench.files import whole

SIZE = 256  # side of a panel [pixels]
CAPTION = 24  # height of the line above it
PLAN_COLOUR, TRAIL_COLOUR, GOAL_COLOUR = (255, 214, 10), (120, 230, 255), (255, 90, 90)
FPS = 10  # half of real time

# Task -> frames that the model expected at the end of each block, or None where it cannot draw them.
Imagine = Callable[[int], UInt8[ndarray, "K H W 3"] | None]


def choose_tasks(outcome: Outcome, count: int) -> list[int]:
    """Choose some tasks to show: a failure, if there is one, then successes, then more failures."""
    failures, successes = np.nonzero(~outcome.success)[0], np.nonzero(outcome.success)[0]
    return [int(task) for task in (*failures[:1], *successes, *failures[1:])][:count]


def write_videos(
    folder: Path,
    env: PointMazes,
    tasks: Tasks,
    outcome: Outcome,
    plans: Plans,
    frameskip: int,
    count: int,
    imagine: Imagine = lambda task: None,
) -> list[Path]:
    """Film a few tasks to folder/videos/task_XXX_success.mp4; the panels are drawn sharper than what the agent saw."""
    chosen = choose_tasks(outcome, count)
    if not chosen:
        return []  # a renderer takes seconds to make
    camera = PointMazes(env.maze.rows, env.renderer.name, SIZE, env.render_lag)
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    paths = []
    for task in chosen:
        verdict = "success" if outcome.success[task] else "failure"
        paths.append(folder / "videos" / f"task_{task:03d}_{verdict}.mp4")
        frames = film_task(camera, tasks, outcome, plans, frameskip, task, imagine(task))
        write_video(paths[-1], frames)
    return paths


def write_video(path: Path, frames: UInt8[ndarray, "T h w 3"]) -> None:
    """Raises OSError where ffmpeg fails, which imageio tells in many ways."""
    try:
        with whole(path) as temporary:
            imageio.mimwrite(temporary, list(frames), fps=FPS, macro_block_size=8, quality=8)  # type: ignore[arg-type]
    except Exception as error:
        told = f"{type(error).__name__}: {error}".partition("\n")[0]
        reason = told if isinstance(error, OSError | RuntimeError) else "it does not answer as ffmpeg does"
        raise OSError(f"ffmpeg cannot write {path}; {reason}; IMAGEIO_FFMPEG_EXE names another ffmpeg") from error


def film_task(
    env: PointMazes,
    tasks: Tasks,
    outcome: Outcome,
    plans: Plans,
    frameskip: int,
    task: int,
    imagined: UInt8[ndarray, "K H W 3"] | None = None,
) -> UInt8[ndarray, "T h w 3"]:
    """Draw one frame per env step: the plan that was being executed, the ball's path so far, the goal.

    Args:
        imagined: frames that the model expected at the end of each block, which get a panel next to reality.
    """
    steps = int(outcome.steps[task])
    states, goal = outcome.states[task, : steps + 1], tasks.goal[task]
    pictures, goal_picture = env.frames(states), env.frames(goal[None])[0]
    font = ImageFont.load_default(14)
    film = []
    for step, picture in enumerate(pictures):
        plan = plans.get(min(step, steps - 1) // frameskip)
        panels = {
            f"plan, step {step}": _panel(env, picture, plan[task] if plan is not None else None, PLAN_COLOUR, goal),
            "reality": _panel(env, picture, states[: step + 1, :2], TRAIL_COLOUR, goal),
        }
        if imagined is not None:
            block = max(0, step - 1) // frameskip  # until its last step, at which reality can be compared
            expected = np.asarray(Image.fromarray(imagined[block]).resize((SIZE, SIZE)))
            panels[f"imagined, step {(block + 1) * frameskip}"] = _panel(env, expected, None, GOAL_COLOUR, goal)
        panels["goal"] = _panel(env, goal_picture, None, GOAL_COLOUR, goal)
        canvas = Image.new("RGB", (SIZE * len(panels), SIZE + CAPTION), (24, 24, 28))
        draw = ImageDraw.Draw(canvas)
        for k, (name, panel) in enumerate(panels.items()):
            canvas.paste(panel, (k * SIZE, CAPTION))
            draw.text((k * SIZE + 8, 4), name, fill=(235, 235, 235), font=font)
        film.append(np.asarray(canvas))
    film += [film[-1]] * FPS  # hold the end for a second
    return np.stack(film)


def _panel(
    env: PointMazes, picture: ndarray, path: Float[ndarray, "K 2"] | None, colour: tuple[int, int, int], goal: ndarray
) -> Image.Image:
    """Draw a frame with a dotted path and a ring of the success radius around the goal."""
    panel = Image.fromarray(picture)
    draw = ImageDraw.Draw(panel)
    model = env.physics.model
    centre, edge = pixel_of(np.array([goal[:2], goal[:2] + (SUCCESS_RADIUS, 0.0)]), model, SIZE)
    radius = edge[0] - centre[0]
    draw.ellipse([*(centre - radius), *(centre + radius)], outline=GOAL_COLOUR, width=1)
    for column, row in pixel_of(path, model, SIZE) if path is not None else ():
        draw.ellipse([column - 2, row - 2, column + 2, row + 2], fill=colour)
    return panel
