"""Exact sums of 8-bit products on any processor, for what is to be known of others.

Without VNNI, x86 kernels for uint8 by int8 cut off sums (``saturation.py``). onnxruntime has a
switch with which it makes uint8 of the weights when a model is loaded: slow, and exact.
"""

from __future__ import annotations

import onnxruntime

KEY = "session.x64quantprecision"


def make_products_exact() -> None:
    """Set the switch in every session that this process makes from now on."""
    plain = onnxruntime.SessionOptions

    class ExactSessionOptions(plain):  # type: ignore[misc, valid-type]
        """Session options with the switch set."""

        def __init__(self) -> None:
            super().__init__()
            self.add_session_config_entry(KEY, "1")

    onnxruntime.SessionOptions = ExactSessionOptions
