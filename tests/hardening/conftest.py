"""Fixtures of the command line, for tests of its faults."""

from tests.cli.conftest import run_here

__all__ = ["run_here"]
