"""Folders of results, which are made where a pipeline names them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onnxq.errors import OutputError
from onnxq.report.files import check_report_path
from onnxq.runs.jobs import Pipeline
from onnxq.runs.places import refuse_reports


def prepare_reports(paths: Sequence[Path], pipeline: Pipeline) -> None:
    """Refuse before the work what would fail after it, and make the folders of reports.

    Args:
        paths: of reports of the whole run.
        pipeline: with all the files that they must not replace.

    Raises:
        UsageError: no format has such an ending.
        OutputError: a folder cannot be made, or a report would replace something else.
    """
    for path in paths:
        check_report_path(path)
    refuse_reports(pipeline, paths)
    for path in paths:
        make_folder(path)


def make_folder(path: Path) -> None:
    """Make the folder that a file is to be written in.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path.parent}: cannot be made: {error.strerror or error}") from error
