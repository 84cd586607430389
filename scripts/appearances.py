"""Draw what may look different: python scripts/appearances.py --renderer egl --output appearances.png

A contact sheet of every declared factor of appearance, and of every appearance of conf/appearance, in the training range,
the near test range and the far one. docs/appearance.md says what each is.
"""

from pathlib import Path

from wmbench.commands import Arguments, door


@door
def main() -> None:
    arguments = Arguments(description=__doc__)
    arguments.add_argument("--maze", default="umaze", help="umaze, medium, large or open (default umaze)")
    arguments.add_argument("--renderer", default="auto", help="auto, egl, osmesa or warp (default auto)")
    arguments.add_argument("--size", type=int, default=96, help="side of a picture [pixels] (default 96)")
    arguments.add_argument("--seed", type=int, default=0, help="of the looks (default 0)")
    arguments.add_argument("--output", type=Path, default=Path("appearances.png"))
    given = arguments.parse_args()
    # after --help, which does not wait for PyTorch
    from PIL import Image

    from wmbench.files import whole
    from wmbench.reports.contact_sheet import draw_contact_sheet

    sheet = Image.fromarray(draw_contact_sheet(given.maze, given.renderer, given.size, given.seed))
    with whole(given.output) as temporary:
        sheet.quantize(256, dither=Image.Dither.NONE).save(temporary, "png", optimize=True)
    print(f"wrote {given.output}")


if __name__ == "__main__":
    main()
