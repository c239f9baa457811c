"""onnxruntime, imported in one place only: some of its builds send telemetry unless told not to."""

from __future__ import annotations

import onnxruntime

onnxruntime.disable_telemetry_events()

__all__ = ["onnxruntime"]
