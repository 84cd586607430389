"""Download weights on a machine with a network: python scripts/fetch.py encoder=dinov2,dinov2_b

They land where train.py and plan.py look for them. Where the machine that trains shares no disk with this one, copy the
files to the same place there, or say where they are with encoder.weights=PATH.
"""

import argparse

import hydra
from hydra.errors import MissingConfigException
from hydra.utils import instantiate
from omegaconf import DictConfig

from wmbench.commands import CONF, explain, fail, size
from wmbench.encoders.weights import fetch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoders", metavar="encoder=NAME,NAME", help="encoders of conf/encoder")
    wanted = parser.parse_args().encoders
    if not wanted.startswith("encoder="):
        fail(f"{wanted!r} must be encoder=NAME or encoder=NAME,NAME, such as encoder=dinov2")
    for name in wanted.removeprefix("encoder=").split(","):
        try:
            print(fetched(name))
        except MissingConfigException as error:
            fail(explain(error, "train"))
        except (ValueError, OSError) as error:
            fail(str(error))


def fetched(name: str) -> str:
    """Download what an encoder needs; a line to print about it."""
    encoder = encoder_config(name)
    if "release" not in encoder:
        return f"{name}: needs no weights"
    release = instantiate(encoder.release)
    path = fetch(release)
    return f"{name}: {path} ({size(path.stat().st_size)}, SHA-256 as released; {release.licence}, {release.access})"


def encoder_config(name: str) -> DictConfig:
    with hydra.initialize_config_dir(CONF, version_base="1.3"):
        return hydra.compose("train", overrides=[f"encoder={name}"]).encoder


if __name__ == "__main__":
    main()
