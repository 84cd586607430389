"""How far the ball can still be found in a latent when the picture looks different."""

import numpy as np

from wmbench.diagnostics.estimate import Values, mean
from wmbench.diagnostics.subject import Subject
from wmbench.envs.appearance import CLEAN, LEVELS, Appearance
from wmbench.envs.physics import is_success

SCALES = (0.0, *LEVELS.values())


def found_at_scales(subject: Subject) -> Values:
    """How well the run's probe reads the tasks' starts and goals, on clean pictures and under `all`.

    The share that it reads to within 0.5 m, and the median of its errors [m]; each place has a look of its own. Where the
    share stays and success falls, predictor or cost are to blame; where it falls, the encoder has lost the ball.
    """
    states, env = np.concatenate([subject.tasks.start, subject.tasks.goal]), subject.env
    own, values = env.appearance, {}
    try:
        for scale in SCALES:
            env.appearance = Appearance.of("all", scale) if scale else CLEAN
            read = subject.reader(subject.at_rest(states, np.arange(len(states))))
            values |= mean(is_success(read, states[:, :2]).astype(np.float64)).named(f"found_{scale:g}")
            values[f"error_m_{scale:g}"] = float(np.median(np.linalg.norm(read - states[:, :2], axis=-1)))
    finally:
        env.appearance = own
    return values
