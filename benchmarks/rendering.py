"""Frames per second of bare rendering and of collection, with as many processes: python benchmarks/rendering.py

Both draw the same states. Start-up (imports, contexts, kernels) is left out of both.
"""

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from wmbench.commands.configuration import compose
from wmbench.data import collection
from wmbench.data import episodes as storage
from wmbench.machine import num_cores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--renderer", default="warp", help="auto, warp, egl or osmesa")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--episodes", type=int, default=96, help="of 100 steps")
    parser.add_argument("--store-every", type=int, default=1)
    parser.add_argument("--workers", type=int, default=num_cores())
    parser.add_argument("--repeats", type=int, default=3, help="the two take turns; medians are printed")
    parser.add_argument("--output", type=Path, help="write the figures here as JSON")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "bench.h5"
        overrides = [
            f"env.renderer={arguments.renderer}",
            f"image_size={arguments.image_size}",
            f"num_episodes={arguments.episodes}",
            f"store_every={arguments.store_every}",
            f"output={path}",
        ]
        settings: Any = OmegaConf.to_container(compose("collect", overrides), resolve=True)
        manifest = collection.make_manifest(settings, versions={})
        storage.create(path, manifest)
        starts = range(0, arguments.episodes, collection.CHUNK)
        chunks = [range(k, min(k + collection.CHUNK, arguments.episodes)) for k in starts]
        frames = arguments.episodes * -(-100 // arguments.store_every)
        start = collection.start_worker
        seconds: dict[str, list[float]] = {"bare": [], "collect": []}
        with ProcessPoolExecutor(arguments.workers, get_context("spawn"), start, (manifest,)) as pool:
            list(pool.map(render_chunk, [manifest] * 2 * len(chunks), chunks * 2))  # warms every process up
            for _ in range(arguments.repeats):
                began = time.perf_counter()
                list(pool.map(render_chunk, [manifest] * len(chunks), chunks))
                seconds["bare"].append(time.perf_counter() - began)
                began = time.perf_counter()
                list(pool.map(collection.collect_chunk, [path] * len(chunks), chunks, [manifest] * len(chunks)))
                seconds["collect"].append(time.perf_counter() - began)
    bare, whole = (frames / float(np.median(seconds[name])) for name in ("bare", "collect"))
    figures = {
        "renderer": manifest["renderer"],
        "image_size": arguments.image_size,
        "store_every": arguments.store_every,
        "workers": arguments.workers,
        "cores": os.cpu_count(),
        "bare_frames_per_s": bare,
        "collect_frames_per_s": whole,
        "ratio": whole / bare,
    }
    print(json.dumps(figures, indent=2))
    if arguments.output:
        arguments.output.write_text(json.dumps(figures, indent=2) + "\n")


def render_chunk(manifest: dict, chunk: range) -> None:
    """As many frames as collect_chunk draws, of random states, and nothing else."""
    world = collection._world
    assert world is not None
    rng = np.random.RandomState(chunk.start)
    count = len(chunk) * -(-manifest["episode_length"] // manifest["store_every"])
    world.frames(np.concatenate([rng.uniform(0.5, 3.1, (count, 2)), np.zeros((count, 2))], axis=1))


if __name__ == "__main__":
    main()
