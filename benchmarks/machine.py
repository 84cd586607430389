"""What the benchmarks measure with: medians of runs that take turns, the machine's matrix peak."""

import platform
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

PEAK_SIDES = {"cpu": (1024, 2048), "cuda": (4096, 8192, 16384), "mps": (2048, 4096)}  # of square matrices


def settings(arguments: list[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Words key=value over defaults, each of its default's type.

    Raises:
        SystemExit: a key that there is not, or a value of another type.
    """
    given = dict(defaults)
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in defaults or not equals:
            raise SystemExit(
                f"error: unknown setting {argument!r}; known: {', '.join(f'{k}={v}' for k, v in defaults.items())}"
            )
        kind = type(defaults[key])
        try:
            given[key] = value == "true" if kind is bool else kind(value)
        except ValueError:
            raise SystemExit(f"error: {key} ({value!r}) must be like {defaults[key]!r}") from None
    return given


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def seconds_of(run: Callable[[], Any], device: torch.device) -> float:
    synchronize(device)
    began = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - began


def median_seconds(run: Callable[[], Any], device: torch.device, repeats: int = 5) -> float:
    """Median seconds of `repeats` runs after one that warms up."""
    return medians({"": run}, device, repeats)[""]


def medians(runs: Mapping[str, Callable[[], Any]], device: torch.device, repeats: int = 5) -> dict[str, float]:
    """Median seconds of each run; they take turns, so that what else the machine does slows all of them alike."""
    for run in runs.values():
        seconds_of(run, device)
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            taken[name].append(seconds_of(run, device))
    return {name: median(values) for name, values in taken.items()}


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the best of a few square matrix products: what any network on this machine stays below."""
    best = 0.0
    for side in PEAK_SIDES[device.type]:
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        best = max(best, 2 * side**3 / median_seconds(lambda a=a, b=b: a @ b, device, repeats=7))
    return best


def has_bf16(device: torch.device) -> str | None:
    """None where bf16 has instructions of its own, else the reason why it has not."""
    if device.type == "cuda":
        return None if torch.cuda.get_device_capability(device) >= (8, 0) else "this GPU is older than Ampere"
    if device.type == "cpu":
        flags = cpu_flags()
        if {"avx512_bf16", "amx_bf16", "bf16"} & flags:
            return None
        return "this CPU has no bf16 instructions (avx512_bf16, amx_bf16 or Arm's bf16)"
    return f"not measured on {device.type}"


def cpu_flags() -> set[str]:
    return set(cpu_info("flags").split()) | set(cpu_info("Features").split())


def cpu_info(name: str) -> str:
    """What Linux says of the first core; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def machine(device: torch.device) -> dict[str, Any]:
    """Facts of the machine that the figures were measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_info("model name") or platform.machine()
    return {"device": device.type, "name": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


KINDS = {"addmm": "matrix products", "mm": "matrix products", "bmm": "matrix products", "attention": "attention"}
KINDS |= {"layer_norm": "LayerNorm", "gelu": "GELU", "cat": "copies", "copy_": "copies", "stack": "copies"}
KINDS |= {"convolution": "convolutions", "pad": "copies", "clone": "copies", "conv": "convolutions"}


def where_time_goes(run: Callable[[], Any], device: torch.device) -> dict[str, float]:
    """Shares of a run's time by kind of operation, from PyTorch's profiler."""
    on_gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu) as profiled:
        run()
        synchronize(device)
    return time_by_kind(profiled.key_averages(), on_gpu)


def time_by_kind(events: Iterable[Any], on_gpu: bool) -> dict[str, float]:
    """Shares of the time of the profiler's events.

    On a GPU its time comes twice: with each operator, whose name tells the kind, and with the kernels that it started. The
    operators are counted; what kernels took beyond them, started by no operator, is part of the rest.
    """
    spent, kernels = {"the rest": 0.0}, 0.0
    for event in events:
        if on_gpu and event.device_type != DeviceType.CPU:
            kernels += 0.0 if getattr(event, "is_user_annotation", False) else event.self_device_time_total
            continue
        kind = next((name for part, name in KINDS.items() if part in event.key), "the rest")
        own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        spent[kind] = spent.get(kind, 0.0) + own
    spent["the rest"] += max(0.0, kernels - sum(spent.values()))
    total = sum(spent.values())
    return {kind: value / total for kind, value in sorted(spent.items(), key=lambda item: -item[1]) if value}


def shares(parts: Mapping[str, float]) -> str:
    """`attention 24%, copies 3%`."""
    return ", ".join(f"{name} {share:.0%}" for name, share in parts.items())


def shown(figures: Mapping[str, Any]) -> str:
    """The figures as text, one line per figure."""
    lines = []
    for name, value in figures.items():
        text = shares(value) if isinstance(value, dict) else f"{value:.4g}" if isinstance(value, float) else str(value)
        lines.append(f"{name:<40}{text}")
    return "\n".join(lines)
