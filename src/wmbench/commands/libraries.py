"""What doctor.py asks of libraries, each in a process of its own, since loading one may crash or hang."""

from pathlib import Path
from typing import Any


def torch_facts() -> dict[str, Any]:
    import warnings

    with warnings.catch_warnings(record=True) as told:  # a driver that is too old is a warning
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = []
    for k in range(count):
        properties = torch.cuda.get_device_properties(k)
        gpus.append(f"{properties.name} with {properties.total_memory / 1e9:.1f} GB")
    return {
        "version": torch.__version__,
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "mps": torch.backends.mps.is_available(),
        "gpus": gpus,
        "why": str(told[-1].message).partition("\n")[0][:200] if told else "no driver or no device",
    }


def driver(kind: str) -> str:
    """The device that a renderer draws with."""
    from wmbench.envs.rendering import make_renderer
    from wmbench.envs.vector import PointMazes

    return make_renderer(kind, PointMazes("umaze").physics.model, 8).driver


def weights() -> dict[str, bool]:
    """Whether the files of each encoder that has its own are here."""
    from wmbench.commands.configuration import CONF, choices, encoder_config
    from wmbench.commands.encoder_list import releases

    own = [name for name in choices("encoder") if "url:" in Path(CONF, "encoder", f"{name}.yaml").read_text()]
    return {name: all(file.path.exists() for file in releases(encoder_config(name))) for name in own}
