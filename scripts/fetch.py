"""Download weights on a machine with a network: python scripts/fetch.py encoder=dinov2,dinov2_b

They land where train.py and plan.py look for them. Where the machine that trains shares no disk with this one, copy the
files to the same place there, or say where they are with encoder.weights=PATH.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from hydra.errors import HydraException
from hydra.utils import instantiate

from wmbench.commands import encoder_config, explain, fail
from wmbench.encoders.weights import Release, fetch
from wmbench.machine import size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoders", metavar="encoder=NAME,NAME", help="encoders of conf/encoder")
    parser.add_argument(
        "settings", nargs="*", metavar="encoder.KEY=VALUE", help="such as encoder.model=NAME of encoder=timm"
    )
    arguments = parser.parse_args()
    wanted = arguments.encoders
    if not wanted.startswith("encoder="):
        fail(f"{wanted!r} must be encoder=NAME or encoder=NAME,NAME, such as encoder=dinov2")
    for name in wanted.removeprefix("encoder=").split(","):
        try:
            print(download(name, arguments.settings))
        except HydraException as error:
            fail(explain(error, "train"))
        except (ValueError, OSError) as error:
            fail(str(error))


def download(name: str, settings: Sequence[str]) -> str:
    """Download what an encoder needs; returns one line per file to print."""
    lines = []
    for release in releases(encoder_config(name, settings)):
        path = fetch(release)
        known = "as released" if release.sha256 else "as first downloaded"
        lines.append(f"{name}: {path} ({size(path.stat().st_size)}, SHA-256 {known}; {release.licence}, {release.access})")
    return "\n".join(lines) or f"{name}: needs no weights"


def releases(node: Any) -> list[Release]:
    """Every file that an encoder's configuration names, however deep; a network may have its backbone's and its own."""
    if not isinstance(node, dict):
        return []
    if node.get("_target_", "").endswith(".Release"):
        return [instantiate(node)]
    return [release for child in node.values() for release in releases(child)]


if __name__ == "__main__":
    main()
