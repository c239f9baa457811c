"""Whether torch is installed, without importing it."""

from __future__ import annotations

import importlib.util

from onnxq.errors import UsageError


def require_torch() -> None:
    """Refuse to train without torch.

    Raises:
        UsageError: it is not installed; says how to install it.
    """
    if importlib.util.find_spec("torch") is None:
        raise UsageError("onnxq qat needs torch: pip install 'onnxq[qat]'")
