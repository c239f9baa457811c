"""What a user can ask of the ranges of activations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onnxq.errors import UsageError
from onnxq.graph.output import check_output
from onnxq.ranges import DEFAULT_PERCENTILE, check_percentile, find_method

AUTO = "auto"
AUTO_METHODS = ("minmax", "percentile", "mse")
"""Entropy is not among them: it is the worst on most real models (docs/static.md)."""


@dataclass(frozen=True, kw_only=True)
class RangeOptions:
    """How ranges are chosen.

    Attributes:
        method: a key of ``METHODS``, or 'auto'.
        percentile: for the method of that name, in percent.

    Raises:
        UsageError: there is no such method, or the percentile is out of range.
    """

    method: str = AUTO
    percentile: float = DEFAULT_PERCENTILE

    def __post_init__(self) -> None:
        check_percentile(self.percentile)
        if self.percentile != DEFAULT_PERCENTILE and self.method not in (AUTO, "percentile"):
            raise UsageError(
                f"--percentile has no meaning for --method {self.method}: leave it out"
            )
        if self.method != AUTO:
            find_method(self.method, percentile=self.percentile)

    @property
    def methods(self) -> tuple[str, ...]:
        """Those to try."""
        return AUTO_METHODS if self.method == AUTO else (self.method,)


@dataclass(frozen=True, kw_only=True)
class RangeFiles:
    """Files that ranges are read from or written to; None for none."""

    load: Path | None = None
    save: Path | None = None

    def check(
        self,
        source: Path,
        options: RangeOptions,
        *,
        has_samples: bool,
        force: bool,
    ) -> None:
        """Refuse before the work what would fail after it.

        Raises:
            UsageError: there is nothing to calibrate with, or two methods.
            OutputError: ranges must not be written there.
        """
        if not has_samples and self.load is None:
            raise UsageError(
                "calibration needs samples: give --calib DIR or --reader MODULE:FUNCTION"
            )
        if self.load is not None and options.method != AUTO:
            raise UsageError("--ranges brings its own method: leave out --method")
        if self.save is not None:
            check_output(source, self.save, force=force, option="--save-ranges")
