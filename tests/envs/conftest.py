"""Imports wmbench's environments before a test imports mujoco, which would otherwise obey MUJOCO_GL."""

import wmbench.envs  # noqa: F401
