"""List the tokens kept for training, and delete some: python scripts/latents.py

--prune deletes the files that are not complete, or those named: python scripts/latents.py --prune maze_DINOv2_0123456789ab
A file that is being written stays. Training computes missing tokens again.
"""

from pathlib import Path

from wmbench.commands import Arguments, door

COLUMNS = ("name", "encoder", "data", "tokens x width", "dtype", "frames", "size", "written", "age")


@door
def main() -> None:
    arguments = Arguments(description=__doc__)
    arguments.add_argument("--dir", type=Path, default=Path("data/latents"), help="cache.dir of train.py")
    arguments.add_argument("--prune", nargs="*", metavar="NAME", help="delete these, or without a name what is incomplete")
    given = arguments.parse_args()
    # after --help, which does not wait for PyTorch
    from wmbench.data.token_list import prune, written_fraction
    from wmbench.machine import size

    paths = {path.stem: path for path in sorted(given.dir.glob("*.latents"))}
    if given.prune is None:
        return print_table(paths)
    if unknown := [name for name in given.prune if name not in paths]:
        raise ValueError(f"no {', '.join(unknown)} in {given.dir}; there: {', '.join(paths) or 'nothing'}")
    total = 0
    for name in given.prune or [name for name, path in paths.items() if written_fraction(path) < 1]:
        freed = prune(paths[name])
        print(f"{name} is being written and stays" if freed is None else f"{name} deleted: {size(freed)}")
        total += freed or 0
    print(f"{size(total)} freed")


def print_table(paths: dict[str, Path]) -> None:
    if not paths:
        return print("no tokens are kept here; train.py keeps those of frozen networks (cache.enabled)")
    import pandas as pd

    from wmbench.data.token_list import describe, on_disk
    from wmbench.machine import size

    print(pd.DataFrame(map(describe, paths.values()), columns=COLUMNS).fillna("").to_string(index=False))
    print(f"{size(sum(on_disk(path) for path in paths.values()))} in all")


if __name__ == "__main__":
    main()
