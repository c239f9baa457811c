"""Where to train."""

from __future__ import annotations

import torch

from onnxq.errors import UsageError

DEVICES = ("auto", "cpu", "cuda")


def choose_device(wanted: str) -> tuple[torch.device, str]:
    """The device, and a note where it is not the one that was asked for.

    Raises:
        UsageError: there is no such name.
    """
    if wanted not in DEVICES:
        raise UsageError(f"--device {wanted}: choose from {', '.join(DEVICES)}")
    if wanted == "cpu":
        return torch.device("cpu"), ""
    if torch.cuda.is_available():
        return torch.device("cuda"), ""
    note = "no CUDA device that torch can use: trained on the CPU" if wanted == "cuda" else ""
    return torch.device("cpu"), note
