"""Colour what encoders see: python scripts/feature_maps.py encoder=dinov2,random_patch data=data/maze.h5

Draws frames of a collection side by side and, in a row for each encoder, the first three principal components of its tokens
as red, green and blue. A setting such as encoder.pretrained=false holds for those of the encoders that have it.
"""

import re
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from PIL import Image

from wmbench.commands import Arguments, door, encoder_config


@door
def main() -> None:
    arguments = Arguments(description=__doc__)
    arguments.add_argument("words", nargs="+", metavar="encoder=NAME,NAME data=PATH", help="and settings, encoder.KEY=VALUE")
    arguments.add_argument("--num-frames", type=int, default=6, help="spread evenly over the collection (default 6)")
    arguments.add_argument("--output", type=Path, default=Path("feature_maps.png"))
    given = arguments.parse_args()
    settings = [word for word in given.words if word.startswith("encoder.")]
    asked = dict(word.partition("=")[::2] for word in given.words if word not in settings)
    if asked.keys() != {"encoder", "data"}:
        raise ValueError(f"give encoder=NAME,NAME, data=PATH and encoder.KEY=VALUE, not {' '.join(given.words)}")
    # after --help, which does not wait for PyTorch
    from wmbench.data.official import open_episodes
    from wmbench.machine import pick_device
    from wmbench.reports.feature_maps import encode_frames, feature_map, feature_sheet, spread_frames

    encoders = build(asked["encoder"].split(","), settings)
    frames = spread_frames(open_episodes(asked["data"]), given.num_frames)
    here = pick_device("auto")
    maps = {name: feature_map(encode_frames(each.to(here), frames), each.grid) for name, each in encoders.items()}
    given.output.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(feature_sheet(frames, maps)).save(given.output)
    print(f"wrote {given.output}")


def build(names: list[str], settings: list[str]) -> dict[str, Any]:
    """Build by name the encoders that have a grid of tokens, each with those of the settings that it has."""
    taken = {name: [s for s in settings if re.split(r"[.=]", s)[1] in encoder_config(name)] for name in names}
    if unknown := set(settings).difference(*taken.values()):
        raise ValueError(f"none of {', '.join(names)} has the setting {', '.join(unknown)}")
    encoders = {}
    for name in names:
        encoder = instantiate(encoder_config(name, taken[name])).eval()
        if encoder.num_tokens == 1:
            print(f"{name}: one token per frame is no map; left out")
        else:
            encoders[" ".join([name, *(setting.removeprefix("encoder.") for setting in taken[name])])] = encoder
    if not encoders:
        raise ValueError("no map to draw; name an encoder with a grid of tokens, such as random_patch or dinov2")
    return encoders


if __name__ == "__main__":
    main()
