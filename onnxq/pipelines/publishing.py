"""The last step of a mode: the result gets its name."""

from __future__ import annotations

from dataclasses import replace

from onnxq.graph.files import ModelFile, refuse_changed
from onnxq.graph.output import Output, publish
from onnxq.verification import Verification


def publish_verified(
    file: ModelFile, staged: Output, verification: Verification, *, force: bool, in_place: bool
) -> Verification:
    """Give a result that was found good its name; returns what was found, with what is left over.

    Raises:
        InvalidModelError: the float model is not the one any more that the result was made of.
        OutputError: see ``publish``.
    """
    refuse_changed(file)
    publish(staged, replace=force or in_place)
    if not in_place:
        return verification
    # Not removed: other models may read them.
    unused = [name for name in file.external_files if name != staged.data_name]
    notes = [
        f"{file.path.with_name(name)}: holds the float weights, which the model in its new form "
        "does not read; remove it if no other model does"
        for name in unused
    ]
    return replace(verification, notes=(*verification.notes, *notes))
