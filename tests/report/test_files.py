"""Reports as files."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from onnxq.errors import OutputError, UsageError
from onnxq.report.files import (
    append_step_summary,
    check_report_path,
    guess_command,
    make_json,
    write_report,
)
from onnxq.report.markdown import write_markdown
from tests.report.test_comparison_text import make_report

STARTS = {".json": "{", ".md": "## ", ".xml": "<?xml ", ".html": "<!DOCTYPE html>"}


@pytest.mark.parametrize("ending", STARTS)
def test_the_ending_says_the_format(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"report{ending.upper()}"
    path.write_text("old")
    write_report(make_report(), path)
    assert path.read_text("utf-8").startswith(STARTS[ending])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["report.txt", "report", ".html", "report.json.gz"])
def test_other_endings_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.json, \.md, \.xml or \.html"):
        write_report(make_report(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_json_of_one_and_of_several(tmp_path: Path) -> None:
    report, path = make_report(), tmp_path / "report.json"
    write_report(report, path)
    one = json.loads(path.read_text("utf-8"))
    assert one == json.loads(json.dumps(make_json(report)))
    assert one["passed"] is False
    write_report([report], path)
    assert json.loads(path.read_text("utf-8")) == {"schema_version": 1, "reports": [one]}


def test_json_has_no_nan(tmp_path: Path) -> None:
    report = make_report()
    metric = replace(report.metrics[1], quantized_value=math.nan)
    assert report.latency is not None
    latency = replace(report.latency, quantized_ms=0.0)
    path = tmp_path / "report.json"
    write_report(replace(report, metrics=(metric,), latency=latency), path)
    data = json.loads(path.read_text("utf-8"), parse_constant=pytest.fail)
    assert data["metrics"][0]["quantized_value"] is None
    assert data["latency"]["speedup"] is None


def test_names_that_are_no_text_do_not_stop_a_report(tmp_path: Path) -> None:
    report = replace(make_report(), quantized_path=Path("a\udcff.onnx"))
    for ending in STARTS:
        write_report(report, tmp_path / f"report{ending}")
        assert (tmp_path / f"report{ending}").read_bytes()


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "report.md"
    folder.mkdir()
    for path in (folder, tmp_path / "none" / "report.md", tmp_path / f"{'x' * 300}.md"):
        with pytest.raises(OutputError, match="cannot be written"):
            write_report(make_report(), path)
    assert list(tmp_path.iterdir()) == [folder]


def test_step_summary_is_appended(tmp_path: Path) -> None:
    path, report = tmp_path / "summary", make_report()
    environment = {"GITHUB_STEP_SUMMARY": str(path)}
    assert append_step_summary(report, environment)
    assert append_step_summary([report], environment)
    assert path.read_text("utf-8") == 2 * (write_markdown([report]) + "\n")


def test_step_summary_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not append_step_summary(make_report(), {})
    assert not append_step_summary(make_report(), {"GITHUB_STEP_SUMMARY": ""})
    with pytest.raises(OutputError, match="cannot be written"):
        append_step_summary(make_report(), {"GITHUB_STEP_SUMMARY": str(tmp_path)})
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    assert append_step_summary(make_report())


def test_html_without_jinja_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    path = tmp_path / "report.html"
    with pytest.raises(UsageError, match=r'pip install "onnxq\[report\]"') as caught:
        write_report(make_report(), path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError):
        check_report_path(path)
    check_report_path(path.with_suffix(".md"))


def test_command_makes_the_same_comparison(tmp_path: Path) -> None:
    folder = tmp_path / "my samples"
    folder.mkdir()
    assert guess_command(replace(make_report(), data=str(folder))) == (
        f"onnxq compare cnn.onnx cnn.int8.onnx --data '{folder}' --layers --min-sqnr 35 "
        "--min-speedup 1.5"
    )
    report = replace(make_report(), data="x" * 5000, layers=(), gates=())
    assert guess_command(report) == "onnxq compare cnn.onnx cnn.int8.onnx"
