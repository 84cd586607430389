"""Imports MuJoCo without MUJOCO_GL, which names another project's renderer and whose import fails where that is missing."""

import os

_chosen_by_others = os.environ.pop("MUJOCO_GL", None)
import mujoco  # noqa: E402, F401

if _chosen_by_others is not None:
    os.environ["MUJOCO_GL"] = _chosen_by_others
