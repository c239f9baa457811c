"""Writing a model so that nothing half-written ever has its final name."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from onnxq.errors import OutputError
from onnxq.graph.files import ModelFile
from onnxq.graph.interrupts import defer_interrupts

EXTERNAL_DATA_THRESHOLD_BYTES = 1_500_000_000
"""Weights above this size go to a file of their own; a protobuf message ends at 2 GiB."""

EXTERNAL_TENSOR_BYTES = 1024
"""Smaller tensors stay in the model file."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Output:
    """Where a model will be.

    Attributes:
        path: its final name.
        staged_path: where it is until it has been verified.
    """

    path: Path
    staged_path: Path

    @property
    def data_name(self) -> str:
        """Name of the file with external data, in the same folder."""
        return f"{self.path.name}.data"

    def size_bytes(self) -> int:
        """Bytes of the staged model, external data included."""
        folder = self.staged_path.parent
        return sum(entry.stat().st_size for entry in folder.iterdir() if entry.is_file())


def check_output(source: Path, output: Path, *, force: bool, option: str = "-o") -> None:
    """Refuse early to write where a result must not go.

    Args:
        source: the input.
        output: where the result is to go.
        force: whether a file that is there may be replaced.
        option: that names the output, for messages.

    Raises:
        OutputError: the output is the input, exists already, or has no folder to be in.
    """
    try:
        if output.exists() and source.exists() and output.samefile(source):
            instead = ", or say --in-place" if option == "-o" else ""
            raise OutputError(
                f"{output}: is the input model; name another file with {option}{instead}"
            )
        if output.is_dir():
            raise OutputError(f"{output}: is a directory; name a file with {option}")
        if output.exists() and not output.is_file():
            raise OutputError(f"{output}: is not a regular file; name another one with {option}")
        output.resolve(strict=False)
        if not output.parent.is_dir():
            raise OutputError(
                f"{output}: the folder {output.parent} does not exist; create it first"
            )
        if output.exists() and not force:
            raise OutputError(f"{output}: exists already; --force replaces it")
    except (OSError, RuntimeError, ValueError) as error:
        # RuntimeError: a loop of symbolic links. ValueError: no file is called so.
        reason = error.strerror if isinstance(error, OSError) else error
        raise OutputError(f"{output}: cannot be written: {reason or error}") from error


@contextmanager
def stage_output(path: Path) -> Iterator[Output]:
    """A hidden folder beside ``path`` to write in; it is gone afterwards, whatever happens.

    Raises:
        OutputError: the folder cannot be written to, or there is no room left while it is used.
    """
    # Behind a symbolic link the file itself is replaced, not the link.
    path = path.resolve()
    folder: Path | None = None
    try:
        with defer_interrupts():
            folder = _make_hidden_folder(path.parent)
        yield Output(path, folder / path.name)
    except OSError as error:
        if not is_no_room(error):
            raise
        raise OutputError(_describe(path, error)) from error
    finally:
        if folder is not None:
            with defer_interrupts():
                shutil.rmtree(folder, ignore_errors=True)


def write_model(source: ModelFile, output: Output, *, force: bool, in_place: bool = False) -> None:
    """Write ``source.model`` to the staged path of ``output``.

    Weights that are computed lazily are computed now, one after the other. External data is
    written where the input has some, or where the result is too large for one file. With
    ``in_place`` the files of the input may be replaced.

    Raises:
        OutputError: the disk is full, or the file for external data is taken.
    """
    model = source.model
    drop_redundant_types(model)
    weights_bytes = sum(
        value.const_value.nbytes
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )
    separate = bool(source.external_files) or weights_bytes > EXTERNAL_DATA_THRESHOLD_BYTES
    data_path = output.path.with_name(output.data_name)
    if not in_place:
        _refuse_weights_of_input(source, output.path)
        _refuse_weights_of_input(source, data_path)
        if separate and data_path.exists() and not force:
            raise OutputError(f"{data_path}: exists already; --force replaces it")
    try:
        ir.save(
            model,
            output.staged_path,
            external_data=output.data_name if separate else None,
            size_threshold_bytes=EXTERNAL_TENSOR_BYTES,
            max_workers=1,
        )
    except OSError as error:
        raise OutputError(_describe(output.path, error)) from error


def publish(output: Output, *, replace: bool) -> None:
    """Give the staged files their final names.

    A model and its data are two files. The old model goes first and the new one comes last, so a
    kill in between leaves no model rather than a model with the data of another. Ctrl-C waits, and
    so does another run that publishes in the same folder.

    Args:
        output: written and found good.
        replace: whether files of these names may be there.

    Raises:
        OutputError: the folder refuses it, or another run was faster.
    """
    staged_data = output.staged_path.with_name(output.data_name)
    data_path = output.path.with_name(output.data_name)
    try:
        with defer_interrupts(), _locked(output.path.parent):
            if not replace:
                _refuse_existing(output.path)
            if not replace and staged_data.exists():
                _refuse_existing(data_path)
            if output.path.exists():
                # Who may read a file stays as it was.
                shutil.copymode(output.path, output.staged_path)
            if staged_data.exists():
                output.path.unlink(missing_ok=True)
                staged_data.replace(data_path)
            output.staged_path.replace(output.path)
    except OSError as error:
        raise OutputError(_describe(output.path, error)) from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file, whole or not at all; one that is there is replaced.

    Raises:
        OutputError: it cannot be written.
    """
    # Behind a symbolic link the file itself is replaced, as a model is. In the same folder,
    # because a file cannot be renamed to another file system. Not by ``tempfile``: its files can
    # be read by their owner only.
    path = path.resolve()
    staged = path.with_name(f".onnxq-{os.getpid()}-{path.name}")
    try:
        staged.write_bytes(content)
        staged.replace(path)
    except OSError as error:
        raise OutputError(_describe(path, error)) from error
    finally:
        with contextlib.suppress(OSError):
            staged.unlink(missing_ok=True)


def drop_redundant_types(model: ir.Model) -> None:
    """Forget the types of constants: their tensors say the same, and twice takes room."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if not (value.is_graph_input() or value.is_graph_output()):
                value.shape = value.type = None


def _refuse_weights_of_input(source: ModelFile, path: Path) -> None:
    folder = source.path.resolve().parent
    if path.exists() and any(path.samefile(folder / name) for name in source.external_files):
        raise OutputError(f"{path}: holds the weights of the input; name another file with -o")


def _make_hidden_folder(parent: Path) -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix=".onnxq-", dir=parent))
    except OSError as error:
        advice = "name another folder with -o"
        if error.errno in _NO_ROOM:
            advice = "free some room"
        raise OutputError(f"{parent}: cannot be written to: {error.strerror}; {advice}") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other runs from publishing in ``folder``, where the system has such locks."""
    with contextlib.ExitStack() as stack:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # some network file systems have none
                descriptor = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, descriptor)  # which gives up the lock
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise OutputError(
            f"{path}: was written by something else while this ran; --force replaces it"
        )


def is_no_room(error: OSError) -> bool:
    """Whether a disk is full, or a quota or limit reached."""
    # numpy raises an error without a number where a disk is full.
    return error.errno in _NO_ROOM or (error.errno is None and " requested and " in str(error))


def _describe(path: Path, error: OSError) -> str:
    if is_no_room(error):
        reason = error.strerror or str(error)
        return f"{path}: no room left to write it ({reason}); nothing was changed"
    return f"{path}: cannot be written: {error.strerror or error}; nothing was changed"
