"""``onnxq.inspect``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from onnxq.api.paths import required_path

if TYPE_CHECKING:
    from onnxq.report.inspection import Inspection


def inspect(
    model: str | os.PathLike[str], *, plan: str | None = None, target: str = "ort-cpu"
) -> Inspection:
    """What is in a model and, with ``plan="dynamic"``, what would become of it.

    Raises:
        OnnxqError: the model cannot be read.
    """
    from onnxq.report.inspection import inspect_model
    from onnxq.targets import find_target

    return inspect_model(required_path(model), plan=plan, target=find_target(target))
