"""What --help prints."""

from pathlib import Path

from wmbench.commands.configuration import CONF


def help_text(description: str, config_name: str) -> str:
    """What a command does, its settings with their comments, and the choices of each group with theirs."""
    settings = Path(CONF, f"{config_name}.yaml").read_text().partition("\nhydra:")[0]
    lines = [
        description.strip(),
        "",
        f"Settings (key=value changes one; conf/{config_name}.yaml):",
        "",
        settings.strip(),
        "",
    ]
    lines.append("Choices (group=choice; group.key=value changes a setting of the one chosen):")
    for group in sorted(path for path in Path(CONF).iterdir() if path.is_dir()):
        if f"- {group.name}:" in settings:
            lines += ["", f"{group.name}:"]
            for choice in sorted(group.glob("*.yaml")):
                comments = (line[2:] for line in choice.read_text().splitlines() if line.startswith("# "))
                about = next((comment for comment in comments if not comment.startswith("@package")), "")
                sentence = about.partition(". ")[0].rstrip(".")
                lines.append(f"  {choice.stem:<17}{sentence}")
    return "\n".join([*lines, "", "--cfg job prints every setting as it would be used; -m runs every combination of a,b."])
