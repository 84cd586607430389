"""What looking different costs: frames that collection draws per second of a core, python benchmarks/appearances.py

All appearances take turns in one process, which is warm before the clock runs; the clock counts the process' own time, so
that other work on the machine hardly shows.
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from wmbench.commands.configuration import compose
from wmbench.data import collection
from wmbench.data import episodes as storage
from wmbench.envs.appearance import FACTORS, presets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--renderers", nargs="+", default=["egl", "warp"])
    parser.add_argument("--appearances", nargs="+", default=[*presets(), *FACTORS], help="of conf/appearance, or factors")
    parser.add_argument("--scale", type=float, default=0.1)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument(
        "--episodes", type=int, default=8, help="of 100 frames for each appearance in a turn; looks cost differently"
    )
    parser.add_argument("--repeats", type=int, default=1, help="turns, whose median is printed")
    given = parser.parse_args()
    for renderer in given.renderers:
        rates = {name: [] for name in dict.fromkeys(["clean", *given.appearances])}
        for _ in range(given.repeats):
            for name, measured in rates.items():
                measured.append(frames_per_second(renderer, name, given))
        clean = np.median(rates["clean"])
        for name, measured in rates.items():
            print(f"{renderer} {name}: {np.median(measured):.0f} frames/s, {np.median(measured) / clean:.0%} of clean")


def frames_per_second(renderer: str, appearance: str, given: argparse.Namespace) -> float:
    """Collect some episodes of an appearance in this process."""
    group = appearance if appearance in presets() else "clean"
    words = [f"env.renderer={renderer}", f"image_size={given.image_size}", f"num_episodes={given.episodes}"]
    words += [f"appearance={group}", f"appearance.scale={given.scale}"]
    words += [f"appearance.factors=[{appearance}]"] if group != appearance else []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "episodes.h5"
        settings: Any = OmegaConf.to_container(compose("collect", [*words, f"output={path}"]), resolve=True)
        manifest = collection.make_manifest(settings, versions={})
        storage.create(path, manifest)
        collection.start_worker(manifest)
        world = collection._world
        assert world is not None
        world.frames(np.zeros((64, 4)), episode=np.arange(64))  # compiles and draws patterns
        began = time.process_time()
        collection.collect_chunk(path, range(given.episodes), manifest)
        return 100 * given.episodes / (time.process_time() - began)


if __name__ == "__main__":
    main()
