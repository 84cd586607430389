"""Settings that wait for the maze and the model: budgets in env steps, and the plans that fit into them."""

from omegaconf import DictConfig, OmegaConf

from wmbench.envs.maze_sets import MazeSet
from wmbench.envs.mazes import Maze


def settle(cfg: DictConfig, maze: Maze | MazeSet, frameskip: int) -> DictConfig:
    """The settings of plan.py for a maze and a model's frameskip; what the command line gives stays.

    A protocol with `budgets` plans towards the smaller of them, again and again, with `plans` plans for each deadline.

    Raises:
        ValueError: a maze without budgets, or a smaller budget of no whole number of blocks.
    """
    cfg = _merged(cfg, {"env": {"frameskip": frameskip}})
    if "budgets" not in cfg.protocol:
        return cfg
    short, most = cfg.protocol.budgets.get(maze.name, (None, None))
    cfg = _fill(cfg, "protocol", short_steps=short)
    cfg = _fill(cfg, "protocol", max_steps=most)
    steps = cfg.protocol.short_steps
    if steps is None or cfg.protocol.max_steps is None:
        known = ", ".join(cfg.protocol.budgets)
        raise ValueError(
            f"protocol={cfg.protocol.name} has budgets for {known}, not for {maze.name}; give protocol.short_steps "
            f"and protocol.max_steps"
        )
    if steps < frameskip or steps % frameskip:
        raise ValueError(
            f"protocol.short_steps ({steps}) must be a multiple of frameskip ({frameskip}), such as "
            f"{max(frameskip, steps // frameskip * frameskip)}"
        )
    if cfg.protocol.plans < 1:
        raise ValueError(f"protocol.plans ({cfg.protocol.plans}) must be positive")
    cfg = _fill(cfg, "agent", horizon=steps // frameskip)
    return _fill(cfg, "agent", num_taken=-(-cfg.agent.horizon // cfg.protocol.plans))


def _fill(cfg: DictConfig, group: str, **settings: int | None) -> DictConfig:
    """Set what is null."""
    return _merged(cfg, {group: {name: value for name, value in settings.items() if cfg[group][name] is None}})


def _merged(cfg: DictConfig, settings: dict) -> DictConfig:
    merged = OmegaConf.merge(cfg, settings)
    assert isinstance(merged, DictConfig)
    return merged
