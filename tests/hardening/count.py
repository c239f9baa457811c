"""Count what comes of every test case of onnx: ``python -m tests.hardening.count``."""

from __future__ import annotations

import argparse
import functools
import json
import logging
import multiprocessing
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tests.hardening.cases import Case, make_variants, model_cases, operator_cases, operator_modules
from tests.hardening.judging import STEPS
from tests.hardening.trying import Finding, Outcome, try_modes

MODELS = "models"


def try_group(group: str, *, modes: tuple[str, ...], at_zero: bool) -> tuple[str, list[Finding]]:
    """Everything of one module, or all whole models, with its name."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    cases = model_cases() if group == MODELS else operator_cases(group)
    with tempfile.TemporaryDirectory() as folder:
        return group, list(_try_cases(cases, Path(folder), modes=modes, at_zero=at_zero))


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
    parser.add_argument(
        "--record", type=Path, help="file of what is done; a run with the same goes on from there"
    )
    parser.add_argument("modules", nargs="*", help="of onnx.backend.test.case.node; all by default")
    arguments = parser.parse_args()
    modes = tuple(arguments.modes.split(","))
    groups = arguments.modules or [MODELS, *operator_modules()]
    done = _read_record(arguments.record)
    work = functools.partial(try_group, modes=modes, at_zero=not arguments.as_users_get_it)
    found = {(case, mode): Outcome(what) for one in done.values() for case, mode, what in one}
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        waiting = [group for group in groups if group not in done]
        for group, findings in pool.imap_unordered(work, waiting):
            for finding in findings:
                found[finding.case, finding.mode] = finding.outcome
                if finding.outcome.is_fault:
                    print(finding, flush=True)
            _record(arguments.record, group, findings)
    print_counts(found, modes)


def print_counts(found: Mapping[tuple[str, str], Outcome], modes: tuple[str, ...]) -> None:
    """A table of outcomes by mode."""
    counts = Counter((mode, outcome) for (_, mode), outcome in found.items())
    print(f"{len({case for case, _ in found})} models")
    for outcome in Outcome:
        print(f"{outcome.value:<42}{''.join(f'{counts[mode, outcome]:>8}' for mode in modes)}")


def _read_record(path: Path | None) -> dict[str, list[list[str]]]:
    """Case, mode and outcome of everything in each group that is done."""
    if path is None or not path.exists():
        return {}
    return dict(json.loads(line) for line in path.read_text("utf-8").splitlines())


def _record(path: Path | None, group: str, findings: list[Finding]) -> None:
    if path is not None:
        with path.open("a", encoding="utf-8") as stream:
            rows = [[one.case, one.mode, one.outcome.value] for one in findings]
            stream.write(json.dumps([group, rows]) + "\n")


if __name__ == "__main__":
    main()
