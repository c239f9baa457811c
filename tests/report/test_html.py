"""Comparisons as a page of HTML, and that page in a browser."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from onnxq.comparison.results import ComparisonReport
from onnxq.report.files import write_report
from onnxq.report.histograms import WeightHistogram
from onnxq.report.html import LONGEST_TABLE, draw_outline, list_nodes, place
from onnxq.report.inspection import inspect_model
from onnxq.targets import find_target
from tests.models import float_weight, make_model, save
from tests.report.test_comparison_text import MET, make_layers, make_report

pytest.importorskip("jinja2", reason="Jinja2 (onnxq[report]) is not installed")

VOID = {"meta", "input", "br", "img", "link", "hr"}
SCRIPT = "<script>document.title = 'owned'</script>"


class Page(HTMLParser):
    """The elements of a page; fails where one is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("script", "style"):
            self.text.append(data)

    def find(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def make_files(folder: Path, name: str = "dense") -> tuple[Path, Path]:
    """A float model with a node and a weight of that name, and its quantized form."""
    weight = float_weight(np.random.default_rng(0), (96, 64))
    scale = np.abs(weight).max(0) / np.float32(127)
    edges = ("float[N, 96] x", "float[N, 64] y")
    original = make_model("y = MatMul(x, w)", *edges, {"w": weight})
    quantized = make_model(
        "a = QuantizeLinear(x, s, z) b = DequantizeLinear(a, s, z) "
        "v = DequantizeLinear<axis = 1>(q, t) y = MatMul(b, v)",
        *edges,
        {"s": np.float32(0.02), "z": np.uint8(100), "t": scale}
        | {"q": np.rint(weight / scale).astype(np.int8)},
    )
    for model in (original, quantized):
        node = model.graph.node[-1]
        node.name = name
        node.output[0] = model.graph.output[0].name = f"y{name}"
    original.graph.initializer[0].name = original.graph.node[0].input[1] = f"w{name}"
    quantized.graph.input[0].name = quantized.graph.node[0].input[0] = f"x{name}"
    return save(original, folder / "float.onnx"), save(quantized, folder / "quantized.onnx")


def write(report: ComparisonReport | list[ComparisonReport], folder: Path) -> tuple[Path, Page]:
    path = folder / "report.html"
    write_report(report, path, command="onnxq compare a b --report c.html")
    return path, Page(path.read_text("utf-8"))


@pytest.fixture
def report(tmp_path: Path) -> ComparisonReport:
    return make_report(*make_files(tmp_path))


def test_the_verdict_comes_first(report: ComparisonReport, tmp_path: Path) -> None:
    _, page = write(report, tmp_path)
    assert "FAIL quantized.onnx 1 of 2 gates is not met." in page.words
    assert "PASS min-sqnr 37.12 dB at least 35 dB output 'logits'" in page.words
    classes = [attributes.get("class", "") for attributes in page.find("section")]
    assert classes[0] == "banner fail"
    _, page = write(replace(report, gates=(MET,)), tmp_path)
    assert "PASS quantized.onnx The gate is met." in page.words
    _, page = write(replace(report, gates=()), tmp_path)
    assert "Compared quantized.onnx No gate was set" in page.words


def test_every_section_is_there(report: ComparisonReport, tmp_path: Path) -> None:
    _, page = write(report, tmp_path)
    for text in (
        "4.00x smaller",
        "1.25x faster",
        "98.05 %",
        "Each output of the quantized model against float",
        "Error of each layer",
        "int8, 96x64, 64 scales",
        "What the integers of each activation can stand for",
        "onnxq static",
        "onnxq compare a b --report c.html",
        "processor",
        "1.25x faster here",
        "Note: 2 bad samples skipped",
    ):
        assert text in page.words
    assert page.words.count("/block3/Conv") >= 2
    titles = [text for text in page.text if "accumulated 15.00 dB" in text]
    assert titles == ["/block0/Conv (Conv): adds 20.00 dB, accumulated 15.00 dB"]


def test_the_page_is_accessible(report: ComparisonReport, tmp_path: Path) -> None:
    _, page = write([report, report], tmp_path)
    names = Counter(tag for tag, _ in page.elements)
    assert names["caption"] == names["table"] > 0
    assert page.find("html")[0]["lang"] == "en"
    for svg in page.find("svg"):
        assert svg.get("role") != "img" or svg["aria-label"]
    for header in page.find("th"):
        assert header["scope"] in ("col", "row")
    ids = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert set(ids.values()) == {1}
    labels = {attributes["for"] for attributes in page.find("label")}
    assert {attributes["id"] for attributes in page.find("input")} == labels
    for _, attributes in page.elements:
        for name in ("aria-labelledby", "data-filter"):
            assert name not in attributes or attributes[name] in ids
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in ids


def test_nothing_is_loaded_from_elsewhere(report: ComparisonReport, tmp_path: Path) -> None:
    path, page = write(report, tmp_path)
    text = path.read_text("utf-8")
    assert not re.search(r"https?://|@import|url\(", text)
    for tag, attributes in page.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed")
        assert "src" not in attributes
        assert not [name for name in attributes if name.startswith("on")]


def test_names_are_escaped(tmp_path: Path) -> None:
    report = make_report(*make_files(tmp_path, SCRIPT))
    layer = replace(make_layers(1)[0], node=SCRIPT, tensor='"><script>', operator=SCRIPT)
    output = replace(report.outputs[0], name=SCRIPT)
    execution = replace(report.executions[0], float_layers=(SCRIPT,))
    report = replace(
        report,
        layers=(layer,),
        outputs=(output,),
        executions=(execution,),
        data=SCRIPT,
        notes=(SCRIPT,),
        verdict=(SCRIPT,),
        gates=(replace(MET, detail=SCRIPT, name=SCRIPT, unit=SCRIPT),),
    )
    path = tmp_path / "report.html"
    write_report(report, path, command=SCRIPT)
    text = path.read_text("utf-8")
    page = Page(text)
    assert len(page.find("script")) == 1
    assert text.count("<script") == 1
    # In weights, activations and the plan, too.
    for name in (f"w{SCRIPT}", f"x{SCRIPT}"):
        assert any(name in part for part in page.text) or name[:20] in page.words
    assert page.words.count(SCRIPT) > 8


def test_files_that_cannot_be_read_leave_sections_out(tmp_path: Path) -> None:
    _, page = write(make_report(Path("none.onnx"), Path("gone.onnx")), tmp_path)
    assert page.words.count("Left out: ") == 2
    assert "gone.onnx" in page.words
    assert "none.onnx" in page.words


def test_a_float_model_that_is_quantized_has_no_plan(tmp_path: Path) -> None:
    _, quantized = make_files(tmp_path)
    _, page = write(make_report(quantized, quantized), tmp_path)
    assert "Left out: the float model is quantized itself" in page.words


def test_dynamic_models_have_the_dynamic_plan(tmp_path: Path) -> None:
    path, _ = make_files(tmp_path)
    _, page = write(make_report(path, path), tmp_path)
    assert "onnxq dynamic" in page.words
    assert "No weight stored as integers" in page.words


def test_extreme_figures(report: ComparisonReport, tmp_path: Path) -> None:
    values = (math.inf, -math.inf, math.nan, 0.0, 5000.0, -5000.0)
    layers = tuple(
        replace(layer, added_sqnr_db=value, accumulated_sqnr_db=value)
        for layer, value in zip(make_layers(6), values, strict=True)
    )
    _, page = write(replace(report, layers=layers, latency=None, outputs=()), tmp_path)
    for rect in page.find("rect"):
        if rect["width"].endswith("%"):
            assert 0.0 <= float(rect["width"][:-1]) <= 100.0


def test_a_page_of_a_large_model_is_small(tmp_path: Path) -> None:
    count = 300
    rng = np.random.default_rng(0)
    nodes = "".join(
        f"[block{i}] w{i} = DequantizeLinear<axis = 1>(q{i}, s{i}) "
        f"a{i} = QuantizeLinear(x{i}, s, z) b{i} = DequantizeLinear(a{i}, s, z) "
        f"x{i + 1} = MatMul(b{i}, w{i}) "
        for i in range(count)
    )
    arrays = {f"q{i}": rng.integers(-127, 128, (32, 32)).astype(np.int8) for i in range(count)}
    scales = {f"s{i}": rng.random(32).astype(np.float32) for i in range(count)}
    quantized = make_model(
        nodes,
        "float[N, 32] x0",
        f"float[N, 32] x{count}",
        {**arrays, **scales, "s": np.float32(0.1), "z": np.uint8(9)},
    )
    float_nodes = "".join(f"[matmul{i}] y{i + 1} = MatMul(y{i}, w) " for i in range(1500))
    original = make_model(
        float_nodes,
        "float[N, 32] y0",
        "float[N, 32] y1500",
        {"w": float_weight(rng, (32, 32))},
    )
    paths = (save(original, tmp_path / "a.onnx"), save(quantized, tmp_path / "b.onnx"))
    report = replace(make_report(*paths), layers=make_layers(3000))
    path, page = write(report, tmp_path)
    assert path.stat().st_size < 2_000_000
    assert "The 200 largest weights are shown, 100 are left out" in page.words
    assert "The first 200 activations are shown, 100 are left out" in page.words
    assert f"The table holds the worst {LONGEST_TABLE} of 3000 layers" in page.words
    assert "more nodes are left out" in page.words
    path, _ = write([report] * 3, tmp_path)
    assert path.stat().st_size < 2_000_000


def test_a_plan_names_each_node_once_and_float_ones_first() -> None:
    path = Path(__file__).resolve().parents[2] / "sample_models" / "transformer.onnx"
    for mode in ("static", "dynamic"):
        plan = inspect_model(path, plan=mode, target=find_target("ort-cpu")).plan
        assert plan is not None
        rows = list_nodes(plan)
        assert len({row.node for row in rows}) == len(rows) > 10
        stays = [row.what == "stays float" for row in rows]
        assert stays == sorted(stays, reverse=True)
        assert all(row.reason for row, is_float in zip(rows, stays, strict=True) if is_float)


def test_places_and_outlines() -> None:
    assert [place(value, -1.0, 3.0) for value in (-2.0, -1.0, 3.0, 9.0)] == [
        *("0.00", "0.00", "100.00", "100.00")
    ]
    assert place(1.0, 1.0, 1.0) == "0.00"
    histogram = replace(_histogram(), counts=(0, 1, 1000, 500))
    assert draw_outline(histogram) == "M0,100V100h1V99h1V0h1V50h1V100z"


def _histogram() -> WeightHistogram:
    return WeightHistogram(
        name="w",
        shape=(2, 2),
        type="int8",
        scales=1,
        counts=(),
        low=-1.0,
        high=1.0,
        clip_low=(-1.0, -1.0),
        clip_high=(1.0, 1.0),
        sqnr_db=None,
    )


CHROMIUM = shutil.which("chromium")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
Browse = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def browse(tmp_path: Path) -> Iterator[Browse]:
    def run(path: Path, fragment: str, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                CHROMIUM or "chromium",
                *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
                *("--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"),
                *options,
                f"{path.as_uri()}{fragment}",
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )

    yield run
    shutil.rmtree(tmp_path / "profile", ignore_errors=True)


def count_shown(dom: str) -> tuple[int, int]:
    """Rows of the table of layers, and bars of the plot, that are to be seen."""
    rows = re.findall(r'<tr data-search="/block[^>]*>', dom)
    bars = re.findall(r'<g data-search="/block[^>]*>', dom)
    shown_rows, shown_bars = (sum("gone" not in tag for tag in tags) for tags in (rows, bars))
    return shown_rows, shown_bars


@needs_browser
def test_search_and_sort_in_a_browser(
    report: ComparisonReport, tmp_path: Path, browse: Browse
) -> None:
    layers = (replace(make_layers(1)[0], node="/blocks/Add", operator="Add"), *make_layers(12)[1:])
    path, _ = write(replace(report, layers=layers), tmp_path)
    plain = browse(path, "", "--dump-dom")
    assert "CONSOLE" not in plain.stderr
    assert count_shown(plain.stdout) == (12, 12)
    assert not re.search(r'<div class="search" hidden', plain.stdout)
    found = browse(path, "#search=conv+block1", "--dump-dom")
    assert count_shown(found.stdout) == (3, 3)
    assert "3 of 12" in found.stdout
    plot = re.findall(r'<svg class="bars"[^>]*>', found.stdout)
    assert 'height="72"' in plot[0]
    ordered = browse(path, "#sort=accumulated", "--dump-dom").stdout
    values = [
        float(one) for one in re.findall(r'data-value="([\d.]+)">[\d.]+ dB</td></tr>', ordered)
    ]
    assert len(values) == 12
    assert values == sorted(values)
    assert 'aria-sort="ascending"' in ordered


@needs_browser
def test_no_script_of_a_model_runs_in_a_browser(tmp_path: Path, browse: Browse) -> None:
    report = make_report(*make_files(tmp_path, SCRIPT))
    layer = replace(make_layers(1)[0], node=SCRIPT)
    path, _ = write(replace(report, layers=(layer,), notes=(SCRIPT,)), tmp_path)
    done = browse(path, "#search=%3Cscript%3E", "--dump-dom")
    assert "CONSOLE" not in done.stderr
    assert "<title>quantized.onnx - onnxq compare</title>" in done.stdout
    # The same browser does tell of errors.
    path.write_text("<script>console.error('seen')</script>")
    assert "CONSOLE" in browse(path, "", "--dump-dom").stderr


@needs_browser
def test_it_can_be_drawn(report: ComparisonReport, tmp_path: Path, browse: Browse) -> None:
    path, _ = write(report, tmp_path)
    image = tmp_path / "page.png"
    browse(path, "", "--window-size=390,800", f"--screenshot={image}")
    assert image.read_bytes().startswith(b"\x89PNG")
    assert image.stat().st_size > 20_000
