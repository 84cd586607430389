"""Take over DINO-WM's published data and checkpoints, or write our data in its format.

    python scripts/import_dino_wm.py data data/point_maze.zip data/point_maze.h5
    python scripts/import_dino_wm.py checkpoint checkpoints/downloaded/point_maze
    python scripts/import_dino_wm.py export data/mine.h5 data/mine

The downloaded zip is read as it is, and a folder may also be trained from in place: python train.py env.data=FOLDER
"""

from pathlib import Path

from wmbench.commands import Arguments, command_line, door, plan_line


@door
def main() -> None:
    arguments = Arguments(description=__doc__)
    commands = arguments.add_subparsers(dest="command", required=True, metavar="data | export | checkpoint")

    def add(name: str, about: str, src: str, dst: str, nargs=None) -> Arguments:
        command = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        command.add_argument("src", type=Path, metavar="SRC", help=src)
        command.add_argument("dst", type=Path, metavar="DST", help=dst, nargs=nargs)
        return command

    zipped, file = "point_maze.zip as downloaded, or the folder in it", "the file to write, such as data/point_maze.h5"
    add("data", "the published folder or zip -> one file of ours", zipped, file)
    ours = "a file that scripts/collect.py wrote with store_every=1"
    add("export", "one file of ours -> a folder in the published format", ours, "the folder to write")
    released, run = "the folder of hydra.yaml and checkpoints/", "the run (checkpoints/outputs/<name of SRC>)"
    imported = add("checkpoint", "a released model folder -> a run that plan.py uses", released, run, nargs="?")
    imported.add_argument("--data", type=Path, metavar="FILE", help="the data that the model was trained on")
    imported.add_argument("--verify", type=Path, metavar="EXPECTED", help="recorded outputs to compare with first")
    given = arguments.parse_args()
    # after --help, which does not wait for PyTorch
    from wmbench.importers.checkpoint import import_checkpoint, verify_checkpoint
    from wmbench.importers.published_data import convert_alone, export_data, import_data

    if given.command == "export":
        convert_alone(export_data, given.src, given.dst)
    elif given.command == "data":
        if convert_alone(import_data, given.src, given.dst):
            print(f"next: {command_line('train.py', {'env.data': given.dst})}")
    else:
        output = given.dst or Path("checkpoints/outputs") / given.src.resolve().name
        if given.verify:
            errors = verify_checkpoint(given.src, given.verify)
            print("\n".join(f"{name:<32}{error:.1e}" for name, error, _ in errors))
            if wrong := [name for name, error, limit in errors if not error <= limit]:
                raise ValueError(f"{given.src} differs from {given.verify} in {', '.join(wrong)}; nothing was imported")
        import_checkpoint(given.src, output, given.data)
        print(f"imported: {output}\nnext: {plan_line(output, script='plan.py --config-name plan_point_maze.yaml')}")


if __name__ == "__main__":
    main()
