"""Collect PointMaze episodes of uniform random actions: python scripts/collect.py env=point_maze num_episodes=200

Processes render different episodes straight into one file. Stopped at any point, the same command finishes the rest.
"""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from wmbench.commands import command
from wmbench.files import exclusive, writing


@command("collect")
def main(cfg: DictConfig) -> None:
    # after --help, which does not wait for PyTorch
    from wmbench.data.collection import checked_output, collect, make_manifest, report_existing
    from wmbench.runs.provenance import versions

    settings: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    output = checked_output(cfg.output, cfg.num_workers)
    manifest = make_manifest(settings, versions(("wmbench", "mujoco", "mujoco-warp", "numpy")))
    if not output.exists():
        remedy = "make room or give another output=; what is done is kept, and the same command goes on from it"
        with writing(output, remedy), exclusive(output, "wait for it, or give another output="):
            if not output.exists():  # as another process may have finished it just now
                return collect(output, manifest, cfg.num_workers)
    report_existing(output, manifest)


if __name__ == "__main__":
    main()
