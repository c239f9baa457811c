"""The pipeline of ``onnxq compare``: how often it reads, what it keeps, what it goes on without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from onnxq.errors import ExecutionError, UsageError
from onnxq.pipelines.compare import CompareOptions, run_compare
from onnxq.runtime.session import Session
from onnxq.samples import open_samples
from tests.models import float_weight, matmul_model, save

OPTIONS = {"latency": False, "footprint": False}


@pytest.fixture
def pair(tmp_path: Path, rng: np.random.Generator) -> tuple[Path, Path]:
    weight = float_weight(rng, (8, 4))
    rounded = (np.round(weight * 16) / 16).astype(np.float32)
    (tmp_path / "samples").mkdir()
    for index in range(7):
        x = rng.standard_normal((2, 8)).astype(np.float32)
        np.savez(tmp_path / "samples" / f"{index}.npz", x=x)
    return (
        save(matmul_model(weight), tmp_path / "a.onnx"),
        save(matmul_model(rounded), tmp_path / "b.onnx"),
    )


def test_each_sample_is_run_once_by_each(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []
    run = Session.run

    def counted(session: Session, *arguments: object) -> object:
        runs.append(id(session))
        return run(session, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "run", counted)
    samples = open_samples(pair[0].parent / "samples")
    report = run_compare(*pair, samples=samples, options=CompareOptions(**OPTIONS))
    assert report.samples == 7
    # The float model, and the quantized one at both levels of optimisation.
    assert sorted(runs.count(one) for one in set(runs)) == [7, 7, 7]


def test_reader_is_never_read_ahead(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reader.py").write_text(
        "import gc, weakref\n"
        "import numpy as np\n"
        "alive = []\n"
        "most = 0\n"
        "def read():\n"
        "    global most\n"
        "    for index in range(40):\n"
        "        x = np.full((1, 8), index, np.float32)\n"
        "        alive.append(weakref.ref(x))\n"
        "        most = max(most, sum(one() is not None for one in alive))\n"
        "        yield {'x': x}\n"
        "        del x\n"
    )
    monkeypatch.chdir(tmp_path)
    samples = open_samples(None, reader="reader:read")
    options = CompareOptions(**OPTIONS, layers=True)
    report = run_compare(*pair, samples=samples, options=options)
    assert report.samples == 40
    import reader  # type: ignore[import-not-found]

    # Four are kept for the measurement of times.
    assert reader.most <= 8


def test_gates_are_looked_at_before_the_work(pair: tuple[Path, Path], tmp_path: Path) -> None:
    samples = open_samples(tmp_path / "samples")
    options = CompareOptions(**OPTIONS, limits={"min-sqrn": 3.0})
    with pytest.raises(UsageError, match="no gate is called 'min-sqrn'; known gates: min-sqnr"):
        run_compare(tmp_path / "none.onnx", pair[1], samples=samples, options=options)


def test_goes_on_where_only_the_plain_graph_does_not_load(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Session.__init__

    def refuse(session: Session, path: Path, **options: object) -> None:
        if options.get("optimization") == "none":
            raise ExecutionError("no", reason="no kernel")
        start(session, path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "__init__", refuse)
    samples = open_samples(pair[0].parent / "samples")
    report = run_compare(*pair, samples=samples, options=CompareOptions(**OPTIONS))
    assert [one.level for one in report.executions] == ["all"]
    assert "does not load without optimisation: no kernel" in report.notes


def test_temporary_files_are_gone(
    pair: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    samples = open_samples(pair[0].parent / "samples")
    during: list[Path] = []

    def watch(items: Iterator[object], _count: int | None) -> Iterator[object]:
        during.extend(temporary.iterdir())
        yield from items

    options = CompareOptions(latency=False, layers=True)
    run_compare(*pair, samples=samples, options=options, progress=lambda _label: watch)  # type: ignore[arg-type, return-value]
    assert during
    assert not list(temporary.iterdir())
