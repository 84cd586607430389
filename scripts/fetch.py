"""Download weights on a machine with a network: python scripts/fetch.py encoder=dinov2,dinov2_b

They land where train.py and plan.py look for them. Where the machine that trains shares no disk with this one, copy the
files to the same place there, or say where they are with encoder.weights=PATH.
"""

from collections.abc import Sequence

from wmbench.commands import Arguments, door, encoder_config


@door
def main() -> None:
    arguments = Arguments(description=__doc__)
    arguments.add_argument("encoders", metavar="encoder=NAME,NAME", help="encoders of conf/encoder")
    arguments.add_argument(
        "settings", nargs="*", metavar="encoder.KEY=VALUE", help="such as encoder.model=NAME of encoder=timm"
    )
    given = arguments.parse_args()
    if not given.encoders.startswith("encoder="):
        raise ValueError(f"{given.encoders!r} must be encoder=NAME or encoder=NAME,NAME, such as encoder=dinov2")
    for name in given.encoders.removeprefix("encoder=").split(","):
        print(download(name, given.settings))


def download(name: str, settings: Sequence[str]) -> str:
    """Download what an encoder needs; returns one line per file to print."""
    # after --help, which does not wait for PyTorch
    from wmbench.commands.encoder_list import releases
    from wmbench.encoders.weights import fetch
    from wmbench.machine import size

    lines = []
    for release in releases(encoder_config(name, settings)):
        path = fetch(release, unpinned=True)
        known = "as released" if release.sha256 else f"{release.digest}, as first downloaded"
        lines.append(f"{name}: {path} ({size(path.stat().st_size)}, SHA-256 {known}; {release.licence}, {release.access})")
    return "\n".join(lines) or f"{name}: needs no weights"


if __name__ == "__main__":
    main()
