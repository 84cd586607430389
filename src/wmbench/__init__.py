"""Importing wmbench registers its environment: `gymnasium.make("wmbench/PointMaze-v0")`."""

import gymnasium

gymnasium.register("wmbench/PointMaze-v0", entry_point="wmbench.envs.point_maze:PointMaze", max_episode_steps=300)
