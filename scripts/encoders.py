"""List the encoders: python scripts/encoders.py

Says what each file of conf/encoder gives and costs, or each of those named (encoder=dinov2,vjepa2). Nothing is downloaded:
sizes and times are those of the same network untrained. --markdown prints a table for a document, with nothing shortened.
"""

from wmbench.commands import Arguments, choices, door

LEGEND = """
GFLOPs: of one frame, two for a multiplication with its addition.
ms: of a single frame on {device}; - where a network of over 100 M parameters is not cached.
weights: cached or not (python scripts/fetch.py encoder=NAME downloads them), a tokenizer's head not trained yet (python
pretrain.py encoder=NAME env.data=PATH.h5 does it), trained with the model, or none."""


@door
def main() -> None:
    arguments = Arguments(description=__doc__)
    arguments.add_argument("encoders", nargs="?", metavar="encoder=NAME,NAME", help="by default all of conf/encoder")
    arguments.add_argument("--no-time", action="store_true", help="measure no milliseconds, which take most of the time")
    arguments.add_argument("--markdown", action="store_true", help="print a Markdown table")
    given = arguments.parse_args()
    # after --help, which does not wait for PyTorch
    import pandas as pd

    from wmbench.commands.encoder_list import COLUMNS, WEIGHTS, as_text, row
    from wmbench.machine import pick_device, progress_bar
    from wmbench.reports.formats import markdown_of

    names = given.encoders.removeprefix("encoder=").split(",") if given.encoders else choices("encoder")
    device = pick_device("auto")
    rows = [
        row(name, None if given.no_time else device) for name in progress_bar(iterable=names, desc="encoders", leave=False)
    ]
    rows.sort(key=lambda row: WEIGHTS.index(row["weights"]) if "weights" in row else len(WEIGHTS))
    table = pd.DataFrame(rows, columns=COLUMNS).fillna("")
    print(markdown_of(table) if given.markdown else as_text(table))
    print(LEGEND.format(device=device))
    for listed in rows:
        if listed.get("note"):
            print(f"{listed['encoder']}: {listed['note']}.")


if __name__ == "__main__":
    main()
