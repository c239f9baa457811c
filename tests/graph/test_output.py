from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxq.errors import OutputError
from onnxq.graph import output as module
from onnxq.graph.files import ModelFile, load_model
from onnxq.graph.output import (
    check_output,
    drop_redundant_types,
    publish,
    stage_output,
    write_model,
)
from tests.models import float_weight, make_model, matmul_model, save, save_external, to_ir


@pytest.fixture
def source(rng: np.random.Generator, tmp_path: Path) -> ModelFile:
    return load_model(save(matmul_model(float_weight(rng, (30, 40))), tmp_path / "in.onnx"))


@pytest.fixture
def external_source(rng: np.random.Generator, tmp_path: Path) -> ModelFile:
    model = matmul_model(float_weight(rng, (30, 40)))
    return load_model(save_external(model, tmp_path / "in.onnx", "in.data"))


def _names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def _write(source: ModelFile, path: Path, *, force: bool = False) -> None:
    with stage_output(path) as staged:
        write_model(source, staged, force=force)
        publish(staged, replace=force)


class TestCheckOutput:
    def test_accepts_a_new_file(self, source: ModelFile, tmp_path: Path) -> None:
        check_output(source.path, tmp_path / "out.onnx", force=False)

    def test_refuses_an_existing_file_unless_forced(
        self, source: ModelFile, tmp_path: Path
    ) -> None:
        output = tmp_path / "out.onnx"
        output.write_text("mine")
        with pytest.raises(OutputError, match="exists already; --force"):
            check_output(source.path, output, force=False)
        check_output(source.path, output, force=True)

    @pytest.mark.parametrize("force", [False, True])
    @pytest.mark.parametrize("way", ["same_path", "other_spelling", "symlink", "hard_link"])
    def test_refuses_the_input_however_it_is_spelt(
        self, source: ModelFile, tmp_path: Path, way: str, force: bool
    ) -> None:
        (tmp_path / "sub").mkdir()
        link = tmp_path / "link.onnx"
        output = {
            "same_path": source.path,
            "other_spelling": tmp_path / "sub" / ".." / "in.onnx",
            "symlink": link,
            "hard_link": link,
        }[way]
        if way == "symlink":
            link.symlink_to(source.path)
        elif way == "hard_link":
            os.link(source.path, link)
        with pytest.raises(OutputError, match="is the input model"):
            check_output(source.path, output, force=force)

    @pytest.mark.parametrize("force", [False, True])
    def test_refuses_a_directory(self, source: ModelFile, tmp_path: Path, force: bool) -> None:
        with pytest.raises(OutputError, match="is a directory"):
            check_output(source.path, tmp_path, force=force)

    def test_refuses_a_folder_that_is_not_there(self, source: ModelFile, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="does not exist; create it first"):
            check_output(source.path, tmp_path / "no" / "out.onnx", force=True)

    def test_refuses_a_folder_that_is_a_file(self, source: ModelFile) -> None:
        with pytest.raises(OutputError, match="does not exist"):
            check_output(source.path, source.path / "out.onnx", force=True)

    def test_refuses_a_name_too_long_for_the_file_system(
        self, source: ModelFile, tmp_path: Path
    ) -> None:
        with pytest.raises(OutputError):
            check_output(source.path, tmp_path / f"{'m' * 300}.onnx", force=False)


class TestStaging:
    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, OutputError])
    def test_leaves_nothing_after_an_exception(
        self, source: ModelFile, tmp_path: Path, error: type[BaseException]
    ) -> None:
        before = _names(tmp_path)
        with pytest.raises(error), stage_output(tmp_path / "out.onnx") as staged:
            write_model(source, staged, force=False)
            assert staged.staged_path.exists()
            raise error("stop")
        assert _names(tmp_path) == before

    def test_leaves_nothing_when_it_was_not_published(
        self, source: ModelFile, tmp_path: Path
    ) -> None:
        with stage_output(tmp_path / "out.onnx") as staged:
            write_model(source, staged, force=False)
        assert _names(tmp_path) == {"in.onnx"}

    def test_stages_in_a_hidden_folder_of_the_same_file_system(self, tmp_path: Path) -> None:
        with stage_output(tmp_path / "out.onnx") as staged:
            folder = staged.staged_path.parent
            assert folder.parent == tmp_path
            assert folder.name.startswith(".")
            assert staged.staged_path.name == "out.onnx"
            assert not (tmp_path / "out.onnx").exists()

    def test_an_existing_output_is_untouched_until_it_is_published(
        self, source: ModelFile, tmp_path: Path
    ) -> None:
        output = tmp_path / "out.onnx"
        output.write_text("old")
        with stage_output(output) as staged:
            write_model(source, staged, force=True)
            assert output.read_text() == "old"
            publish(staged, replace=True)
        assert load_model(output).model.graph.initializers["w"].const_value is not None
        assert _names(tmp_path) == {"in.onnx", "out.onnx"}

    def test_a_folder_that_cannot_be_written_to_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(**_: object) -> str:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(module.tempfile, "mkdtemp", refuse)
        with (
            pytest.raises(OutputError, match="cannot be written to: Permission denied"),
            stage_output(tmp_path / "out.onnx"),
        ):
            pytest.fail("nothing can be staged")

    def test_behind_a_symbolic_link_the_file_is_replaced(
        self, source: ModelFile, tmp_path: Path
    ) -> None:
        (tmp_path / "below").mkdir()
        real, link = tmp_path / "below" / "real.onnx", tmp_path / "out.onnx"
        real.write_text("old")
        link.symlink_to(real)
        _write(source, link, force=True)
        assert link.is_symlink()
        assert load_model(real).size_bytes == real.stat().st_size > len("old")


class TestWriting:
    def test_what_is_written_is_the_model(self, source: ModelFile, tmp_path: Path) -> None:
        _write(source, tmp_path / "out.onnx")
        onnx.checker.check_model(str(tmp_path / "out.onnx"), full_check=True)
        assert _names(tmp_path) == {"in.onnx", "out.onnx"}

    def test_external_data_in_external_data_out(
        self, external_source: ModelFile, tmp_path: Path
    ) -> None:
        expected = external_source.model.graph.initializers["w"].const_value
        assert expected is not None
        array = expected.numpy().copy()
        with stage_output(tmp_path / "out.onnx") as staged:
            write_model(external_source, staged, force=False)
            size_bytes = staged.size_bytes()
            publish(staged, replace=False)
        assert _names(tmp_path) == {"in.onnx", "in.data", "out.onnx", "out.onnx.data"}
        written = load_model(tmp_path / "out.onnx")
        assert written.external_files == ("out.onnx.data",)
        assert written.size_bytes == size_bytes
        tensor = written.model.graph.initializers["w"].const_value
        assert tensor is not None
        assert np.array_equal(tensor.numpy(), array)

    def test_large_weights_go_to_a_file_of_their_own(
        self, source: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "EXTERNAL_DATA_THRESHOLD_BYTES", 30 * 40 * 4 - 1)
        _write(source, tmp_path / "out.onnx")
        assert load_model(tmp_path / "out.onnx").external_files == ("out.onnx.data",)

    def test_weights_at_the_threshold_stay_inside(
        self, source: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "EXTERNAL_DATA_THRESHOLD_BYTES", 30 * 40 * 4)
        _write(source, tmp_path / "out.onnx")
        assert load_model(tmp_path / "out.onnx").external_files == ()

    def test_small_tensors_stay_inside(self, rng: np.random.Generator, tmp_path: Path) -> None:
        model = make_model(
            "z = MatMul(x, w) y = Add(z, b)",
            "float[N, 30] x",
            "float[N, 40] y",
            {"w": float_weight(rng, (30, 40)), "b": float_weight(rng, (40,))},
        )
        source = load_model(save_external(model, tmp_path / "in.onnx", "in.data"))
        _write(source, tmp_path / "out.onnx")
        written = load_model(tmp_path / "out.onnx").model.graph.initializers
        assert isinstance(written["w"].const_value, ir.ExternalTensor)
        assert not isinstance(written["b"].const_value, ir.ExternalTensor)

    def test_a_data_file_in_the_way_is_refused_unless_forced(
        self, external_source: ModelFile, tmp_path: Path
    ) -> None:
        (tmp_path / "out.onnx.data").write_text("mine")
        with pytest.raises(OutputError, match=r"out\.onnx\.data: exists already; --force"):
            _write(external_source, tmp_path / "out.onnx")
        assert (tmp_path / "out.onnx.data").read_text() == "mine"
        _write(external_source, tmp_path / "out.onnx", force=True)
        assert load_model(tmp_path / "out.onnx").external_files == ("out.onnx.data",)

    def test_the_data_of_the_input_is_never_replaced(
        self, rng: np.random.Generator, tmp_path: Path
    ) -> None:
        model = matmul_model(float_weight(rng, (30, 40)))
        source = load_model(save_external(model, tmp_path / "in.onnx", "out.onnx.data"))
        before = (tmp_path / "out.onnx.data").read_bytes()
        with pytest.raises(OutputError, match="holds the weights of the input"):
            _write(source, tmp_path / "out.onnx", force=True)
        assert (tmp_path / "out.onnx.data").read_bytes() == before
        assert _names(tmp_path) == {"in.onnx", "out.onnx.data"}

    @pytest.mark.parametrize(
        ("number", "reason"),
        [
            pytest.param(errno.ENOSPC, "no room left", id="disk_full"),
            pytest.param(errno.EDQUOT, "no room left", id="quota"),
            pytest.param(errno.EIO, "cannot be written", id="broken_disk"),
        ],
    )
    def test_a_failed_write_leaves_nothing(
        self,
        source: ModelFile,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        number: int,
        reason: str,
    ) -> None:
        def fail(_model: ir.Model, path: Path, **_: object) -> None:
            path.write_bytes(b"half")
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(module.ir, "save", fail)
        with pytest.raises(OutputError, match=f"{reason}.*nothing was changed"):
            _write(source, tmp_path / "out.onnx")
        assert _names(tmp_path) == {"in.onnx"}


class TestPublishing:
    @pytest.fixture
    def steps(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
        """What happens to files with their final names, in order."""
        done: list[str] = []
        replace, unlink = Path.replace, Path.unlink

        def record_replace(self: Path, target: Path) -> Path:
            if target.parent == tmp_path:
                done.append(f"write {target.name}")
            return replace(self, target)

        def record_unlink(self: Path, missing_ok: bool = False) -> None:
            if self.parent == tmp_path:
                done.append(f"remove {self.name}")
            unlink(self, missing_ok=missing_ok)

        monkeypatch.setattr(Path, "replace", record_replace)
        monkeypatch.setattr(Path, "unlink", record_unlink)
        return done

    def test_one_file_is_one_rename(
        self, source: ModelFile, tmp_path: Path, steps: list[str]
    ) -> None:
        _write(source, tmp_path / "out.onnx")
        assert steps == ["write out.onnx"]

    def test_a_model_never_stands_beside_the_data_of_another(
        self, external_source: ModelFile, tmp_path: Path, steps: list[str]
    ) -> None:
        _write(external_source, tmp_path / "out.onnx")
        steps.clear()
        _write(external_source, tmp_path / "out.onnx", force=True)
        assert steps == ["remove out.onnx", "write out.onnx.data", "write out.onnx"]

    def test_a_refused_rename_is_an_output_error(
        self, source: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(self: Path, target: Path) -> Path:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(Path, "replace", refuse)
        with pytest.raises(OutputError, match="cannot be written: Operation not permitted"):
            _write(source, tmp_path / "out.onnx")
        assert _names(tmp_path) == {"in.onnx"}


def test_types_of_constants_are_dropped_where_their_tensors_say_the_same(
    rng: np.random.Generator,
) -> None:
    model = to_ir(
        make_model(
            "z = MatMul(x, w) y = Add(z, b)",
            "float[N, 3] x, float[4] b",
            "float[N, 4] y, float[2] out",
            {
                "w": float_weight(rng, (3, 4)),
                "b": float_weight(rng, (4,)),
                "out": float_weight(rng, (2,)),
            },
        )
    )
    drop_redundant_types(model)
    initializers = model.graph.initializers
    assert initializers["w"].type is initializers["w"].shape is None
    assert initializers["b"].type is not None
    assert initializers["out"].type is not None
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_same_model_same_bytes(source: ModelFile, tmp_path: Path) -> None:
    _write(source, tmp_path / "a.onnx")
    _write(load_model(source.path), tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
