"""Samples from a function of the user."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from onnxq.errors import DataError, UsageError
from onnxq.runtime.session import InputSignature
from onnxq.samples import SampleOptions, Samples, open_samples

X = InputSignature("x", np.float32, ("batch", 3))
GOOD = "np.ones((1, 3), np.float32)"

Open = Callable[..., Samples]


@pytest.fixture
def open_reader(tmp_path: Path) -> Open:
    """Opens ``read`` of a file that holds the code."""

    def write(code: str, **options: object) -> Samples:
        path = tmp_path / "feeds.py"
        path.write_text(f"import numpy as np\n{code}\n")
        return open_samples(None, reader=f"{path}:read", options=SampleOptions(**options))  # type: ignore[arg-type]

    return write


def test_function_is_called_anew_at_every_read(open_reader: Open) -> None:
    samples = open_reader(f"def read():\n  for i in range(3):\n    yield {{'x': {GOOD} * i}}")
    for _ in range(2):
        given = list(samples.read([X]))
        assert [sample.name for sample in given] == [f"reader sample {index}" for index in range(3)]
        assert [int(sample.feeds["x"][0, 0]) for sample in given] == [0, 1, 2]
    assert samples.count is None
    assert samples.label.startswith("reader /")


def test_limit_takes_the_first_and_asks_for_no_more(open_reader: Open) -> None:
    samples = open_reader(
        f"def read():\n  yield {{'x': {GOOD}}}\n  yield {{'x': {GOOD}}}\n  raise ValueError",
        limit=2,
    )
    assert len(list(samples.read([X]))) == 2
    assert samples.notes[0] == "the first 2 samples of the reader"


@pytest.mark.parametrize("given", ["[{'x': [[True, False, True]]}]", f"({{'x': {GOOD}}},)"])
def test_any_iterable_of_what_numpy_can_make_arrays_of(given: str, open_reader: Open) -> None:
    (sample,) = open_reader(f"def read(): return {given}").read([X])
    assert sample.feeds["x"].dtype == np.float32


@pytest.mark.parametrize(
    ("code", "part"),
    [
        ("def read(): return 5", "gives one int; it has to give an iterable of dictionaries"),
        ("def read(): return {'x': 1}", "gives one dict; it has to give an iterable"),
        ("def read(): raise OSError('no disk')", "the call failed: OSError: no disk"),
        ("def read(needed): pass", "the call failed: TypeError: read() missing 1 required"),
        ("def read():\n  yield {}['no']", "sample 0 failed: KeyError: 'no'"),
        (
            f"def read():\n  yield {{'x': {GOOD}}}\n  raise SystemExit(2)",
            "sample 1 failed: SystemExit: 2",
        ),
        ("def read(): return [np.ones(3)]", "sample 0: is of type ndarray; give a dictionary"),
        ("def read(): return [{'y': 1}]", "sample 0: has no array 'x'; it holds ['y']"),
        ("def read(): return [{'x': [[1], [2, 3]]}]", "sample 0: cannot be made numpy arrays"),
        ("def read(): return [{'x': [[1, 2, 3]]}]", "array 'x' is int64[1, 3], which does not"),
        (f"def read(): return [{{'x': {GOOD} * np.nan}}]", "sample 0: array 'x' holds NaN"),
        ("def read(): return []", "gave no samples; it must give them anew whenever it is called"),
    ],
    ids=lambda one: one[:40],
)
def test_code_that_does_not_work(code: str, part: str, open_reader: Open) -> None:
    with pytest.raises(DataError) as caught:
        list(open_reader(code).read([X]))
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_samples_are_skipped_but_not_failures(open_reader: Open) -> None:
    code = f"def read():\n  yield 5\n  yield {{'x': {GOOD}}}\n"
    samples = open_reader(code, skip_bad=True)
    assert [sample.name for sample in samples.read([X])] == ["reader sample 1"]
    assert len(samples.skipped) == 1
    with pytest.raises(DataError, match="sample 2 failed: ZeroDivisionError"):
        list(open_reader(code + "  1 / 0", skip_bad=True).read([X]))


def test_iterator_that_is_spent_after_the_first_read(open_reader: Open) -> None:
    samples = open_reader(f"once = iter([{{'x': {GOOD}}}])\ndef read(): return once")
    assert len(list(samples.read([X]))) == 1
    with pytest.raises(DataError, match="gave no samples; it must give them anew"):
        list(samples.read([X]))


def test_module_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "feeds.py").write_text(
        "def read():\n  from own_sizes import SIZE\n  yield {'x': [[False] * SIZE]}\n"
    )
    (tmp_path / "own_sizes.py").write_text("SIZE = 3\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    (sample,) = open_samples(None, reader="own_package.feeds:read").read([X])
    assert sample.feeds["x"].shape == (1, 3)
    assert sys.path == before


def test_file_imports_what_lies_beside_it(open_reader: Open, tmp_path: Path) -> None:
    (tmp_path / "beside_the_reader.py").write_text("SIZE = 3\n")
    code = "from beside_the_reader import SIZE\ndef read(): return [{'x': [[False] * SIZE]}]"
    assert len(list(open_reader(code).read([X]))) == 1


@pytest.mark.parametrize(
    ("reader", "part"),
    [
        ("feeds", "--reader feeds: give module:function, or path/to/file.py:function"),
        ("feeds:", "give module:function"),
        (":read", "give module:function"),
        ("no_such_module:read", "no module 'no_such_module' here or on Python's path"),
        ("json.no_such_part:read", "no module 'json.no_such_part'"),
        ("json:no_such_function", "'json' has no function 'no_such_function'"),
        ("json:__name__", "'json' has no function '__name__'"),
        ("nowhere.py:read", "no file nowhere.py"),
    ],
)
def test_reader_that_does_not_exist(reader: str, part: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_samples(None, reader=reader)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("code", "part"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("raise SystemExit('usage')", "SystemExit: usage"),
        ("def (", "SyntaxError"),
    ],
    ids=["import", "exit", "syntax"],
)
def test_module_that_fails(code: str, part: str, open_reader: Open) -> None:
    with pytest.raises(DataError, match=rf"feeds\.py:read: its import failed: {part}"):
        open_reader(code)


def test_fingerprint_is_of_the_name(open_reader: Open) -> None:
    first = open_reader("def read(): return []").fingerprint()
    assert first == open_reader("def read(): return [1]").fingerprint()
    assert first != open_samples(None, reader="json:loads").fingerprint()
