"""Compare an encoder with recorded outputs: python scripts/verify_encoder.py encoder=dinov2 file=PATH

Builds the recorded network from the file's own config, loads its state dict through weights=PATH as a run would, and
prints ||ours - recorded|| / ||recorded|| of every output. Exit status 1 if one is above the limit or no number.
"""

from pathlib import Path

from wmbench.commands import Arguments, door


@door
def main() -> None:
    arguments = Arguments(description=__doc__)
    arguments.add_argument("settings", nargs=2, metavar="encoder=NAME file=PATH", help="an encoder and its recording")
    given = dict(setting.split("=", 1) for setting in arguments.parse_args().settings if "=" in setting)
    # after --help, which does not wait for PyTorch
    import torch

    from wmbench.commands.encoder_recordings import FAMILIES
    from wmbench.importers.golden import read_record, relative_error

    if given.keys() != {"encoder", "file"}:
        raise ValueError(f"give encoder=NAME and file=PATH, not {', '.join(given) or 'words without ='}")
    if given["encoder"] not in FAMILIES:
        raise ValueError(f"no recording of encoder {given['encoder']!r} can be checked; known: {', '.join(FAMILIES)}")
    what = f"{given['file']} is no recording of {given['encoder']}"
    try:
        recorded = read_record(Path(given["file"]))
        with torch.inference_mode():
            outputs = FAMILIES[given["encoder"]](recorded)
            passed = [report(each.name, relative_error(each.ours, each.recorded), each.limit) for each in outputs]
    except FileNotFoundError:
        raise
    except KeyError as error:
        raise ValueError(f"{what}: it has no {error}") from None
    except Exception as error:  # parts that do not fit each other can raise anything
        raise ValueError(f"{what}: {' '.join(str(error).split())}") from None
    if not passed:
        raise ValueError(f"{given['file']} holds no recording of {given['encoder']}")
    raise SystemExit(not all(passed))


def report(name: str, error: float, limit: float) -> bool:
    """Print an output's error; returns whether it is within the limit."""
    within = error <= limit
    print(f"{name:<32}{error:.1e}{'' if within else '  fails'}")
    return within


if __name__ == "__main__":
    main()
