"""Count what comes of every test case of onnx: ``python -m tests.hardening.count``."""

from __future__ import annotations

import argparse
import functools
import logging
import multiprocessing
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.hardening.cases import Case, make_variants, model_cases, operator_cases, operator_modules
from tests.hardening.judging import STEPS
from tests.hardening.trying import Finding, Outcome, try_modes

MODELS = "models"


def try_group(group: str, *, modes: tuple[str, ...], at_zero: bool) -> list[Finding]:
    """Everything of one module, or all whole models."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    cases = model_cases() if group == MODELS else operator_cases(group)
    with tempfile.TemporaryDirectory() as folder:
        return list(_try_cases(cases, Path(folder), modes=modes, at_zero=at_zero))


def _try_cases(
    cases: Iterable[Case], folder: Path, *, modes: tuple[str, ...], at_zero: bool
) -> Iterator[Finding]:
    for case in cases:
        for variant in make_variants(case):
            yield from try_modes(variant, modes, folder / "work", at_zero=at_zero)


def main() -> None:
    """Print a table of outcomes by mode, and each fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modes", default="int8,fp16,static", help=f"of {', '.join(STEPS)}")
    parser.add_argument("--as-users-get-it", action="store_true", help="with the limits of sizes")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("modules", nargs="*", help="of onnx.backend.test.case.node; all by default")
    arguments = parser.parse_args()
    modes = tuple(arguments.modes.split(","))
    groups = arguments.modules or [MODELS, *operator_modules()]
    work = functools.partial(try_group, modes=modes, at_zero=not arguments.as_users_get_it)
    found: dict[tuple[str, str], Outcome] = {}
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        for findings in pool.imap_unordered(work, groups):
            for finding in findings:
                found[finding.case, finding.mode] = finding.outcome
                if finding.outcome.is_fault:
                    print(finding, flush=True)
    counts = Counter((mode, outcome) for (_, mode), outcome in found.items())
    print(f"{len({case for case, _ in found})} models")
    for outcome in Outcome:
        print(f"{outcome.value:<42}{''.join(f'{counts[mode, outcome]:>8}' for mode in modes)}")


if __name__ == "__main__":
    main()
