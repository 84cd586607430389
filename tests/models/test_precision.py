"""What numbers are rounded to is one value: applied, put back, recorded."""

import os
from collections.abc import Callable

import pytest
import torch
from omegaconf import OmegaConf

from wmbench.commands import command
from wmbench.models.precision import Precision, applied_precision, precision_named
from wmbench.training.trainee import autocast

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def switches() -> tuple[str, bool]:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(
    ("precision", "expected"),
    [(Precision(), ("highest", False)), (Precision(tf32=True), ("high", True)), (Precision(bf16=True), ("highest", False))],
)
def test_it_sets_every_switch_and_puts_it_back_whatever_happens(precision: Precision, expected: tuple[str, bool]):
    """PyTorch rounds convolutions on a GPU unless told not to: fp32 tells it."""
    before = switches()
    with pytest.raises(KeyError), precision.applied():
        assert switches() == expected
        raise KeyError
    assert switches() == before


@pytest.mark.parametrize(
    ("name", "device", "expected"),
    [
        ("fp32", GPU, Precision()),
        ("tf32", GPU, Precision(tf32=True)),
        ("bf16", CPU, Precision(bf16=True)),
        ("auto", CPU, Precision()),
        ("auto", GPU, Precision(bf16=True)),
    ],
)
def test_a_name_says_what_is_rounded(name: str, device: torch.device, expected: Precision):
    assert precision_named(name, device) == expected


def test_one_that_is_not_known_or_not_here_is_refused():
    with pytest.raises(ValueError, match="unknown precision 'fp8'; known: fp32, tf32, bf16"):
        precision_named("fp8", CPU)
    with pytest.raises(ValueError, match="precision=tf32 needs a CUDA GPU, and this is cpu"):
        precision_named("tf32", CPU)


@pytest.mark.parametrize(("precision", "expected"), [(Precision(), torch.float32), (Precision(bf16=True), torch.bfloat16)])
def test_losses_are_computed_in_what_is_applied(precision: Precision, expected: torch.dtype):
    x = torch.ones(3, 3)
    with precision.applied():
        assert applied_precision(CPU) == precision
        with autocast(CPU):
            assert (x @ x).dtype == expected
    with autocast(CPU):
        assert (x @ x).dtype == torch.float32


def test_the_job_after_one_in_tf32_has_the_switches_of_a_first_one(monkeypatch: pytest.MonkeyPatch):
    """As a sweep runs them: one after another in one process."""
    seen = []

    def jobs(**_: object) -> Callable:
        def decorate(run: Callable) -> Callable:
            def sweep() -> None:
                for tf32 in (True, False):
                    run(OmegaConf.create({"device": "cpu", "tf32": tf32}))

            return sweep

        return decorate

    monkeypatch.setattr("hydra.main", jobs)
    monkeypatch.setattr("wmbench.commands.entry.read", lambda words, config: words)
    monkeypatch.setattr("sys.argv", ["train.py"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    command("train")(lambda cfg: seen.append(switches()))()
    assert seen == [("high", True), ("highest", False)]


def test_a_command_that_must_be_deterministic_is_and_the_next_one_is_not():
    assert not torch.are_deterministic_algorithms_enabled()
    with precision_named("fp32", CPU, deterministic=True).applied():
        assert torch.are_deterministic_algorithms_enabled() and os.environ["CUBLAS_WORKSPACE_CONFIG"]
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_operation_that_cannot_be_deterministic_is_refused_in_one_line():
    told = "cumsum_cuda does not have a deterministic implementation, but you set it. You can turn it off."
    refused = pytest.raises(ValueError, match=r"^deterministic=true: cumsum_cuda .* but you set it; leave it false$")
    with refused, Precision(deterministic=True).applied():
        raise RuntimeError(told)
