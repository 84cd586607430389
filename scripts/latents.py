"""List the tokens kept for training, and delete some: python scripts/latents.py

--prune deletes what is not complete, or what is named: python scripts/latents.py --prune maze_DINOv2_0123456789ab
What is being written stays. Training computes missing tokens again.
"""

from pathlib import Path

from wmbench.commands import Arguments, door

COLUMNS = ("name", "encoder", "data", "tokens x width", "dtype", "frames", "files", "size", "written", "age")


@door
def main() -> None:
    arguments = Arguments(description=__doc__)
    arguments.add_argument("--dir", type=Path, nargs="+", default=[Path("data/latents")], help="cache.dir of train.py")
    arguments.add_argument("--prune", nargs="*", metavar="NAME", help="delete these, or without a name what is incomplete")
    given = arguments.parse_args()
    # after --help, which does not wait for PyTorch
    from wmbench.data.token_list import prune, sets_in, written_fraction
    from wmbench.machine import size

    sets = sets_in(given.dir)
    if given.prune is None:
        return print_table(sets)
    if unknown := [name for name in given.prune if name not in sets]:
        where = " and ".join(map(str, given.dir))
        raise ValueError(f"no {', '.join(unknown)} in {where}; there: {', '.join(sets) or 'nothing'}")
    total = 0
    for name in given.prune or [name for name, paths in sets.items() if written_fraction(name, paths) < 1]:
        freed = prune(name, sets[name])
        print(f"{name} is being written and stays" if freed is None else f"{name} deleted: {size(freed)}")
        total += freed or 0
    print(f"{size(total)} freed")


def print_table(sets: dict[str, list[Path]]) -> None:
    if not sets:
        return print("no tokens are kept here; train.py keeps those of frozen networks (cache.enabled)")
    import pandas as pd

    from wmbench.data.token_list import describe, on_disk
    from wmbench.machine import size

    lines = [describe(name, paths) for name, paths in sets.items()]
    print(pd.DataFrame(lines, columns=COLUMNS).fillna("").to_string(index=False))
    print(f"{size(sum(map(on_disk, sets.values())))} in all")


if __name__ == "__main__":
    main()
