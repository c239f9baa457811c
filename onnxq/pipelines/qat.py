"""Fine-tuning a quantized model until it is as much like its float model as it can be."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxq.comparison.labels import Labels, find_labels
from onnxq.graph.files import ModelFile, load_model, refuse_changed
from onnxq.graph.output import Output, check_output, stage_output, write_model
from onnxq.pipelines.calibrate import Progress
from onnxq.pipelines.common import choose_destination, pass_through
from onnxq.pipelines.conflicts import Kind, Reading, Writing, list_readings, refuse_conflicts
from onnxq.pipelines.publishing import publish_verified
from onnxq.pipelines.qat_judging import Judge, Likeness
from onnxq.pipelines.qat_options import LessonOptions, StartOptions
from onnxq.pipelines.qat_result import TrainingResult
from onnxq.pipelines.qat_starting import Start, Starter
from onnxq.pipelines.stages import BETTER_BY_DB
from onnxq.runtime.damage import explain_damage
from onnxq.runtime.memory import refuse_beyond_memory
from onnxq.runtime.session import Session
from onnxq.samples import Part, Samples, calibration_part, verification_part
from onnxq.training.availability import require_torch
from onnxq.training.options import TrainingOptions
from onnxq.verification import Verification, find_hints, verify

if TYPE_CHECKING:
    from onnxq.training.fine_tuning import Tuned
    from onnxq.training.history import Report

KIND = "qat"


def run_qat(
    source: Path,
    output: Path | None,
    *,
    train: Samples,
    validation: Samples | None,
    start: StartOptions,
    lesson: LessonOptions,
    training: TrainingOptions,
    force: bool = False,
    in_place: bool = False,
    keep_metadata: bool = False,
    progress: Progress | None = None,
    report: Report | None = None,
) -> TrainingResult:
    """Fine-tune a quantized form of a float model.

    Raises:
        OnnxqError: any of its kinds; then no output file exists.
    """
    require_torch()
    destination = choose_destination(source, output, kind=KIND, in_place=in_place, force=force)
    refuse_conflicts(
        (
            Writing("-o", destination, has_data=True),
            Writing("--checkpoint", lesson.checkpoint),
        ),
        (
            *list_readings(
                source, train, "--train", in_place=in_place, files={"--labels": lesson.labels}
            ),
            Reading("--val", None if validation is None else validation.folder, Kind.SAMPLES),
            Reading("the model of --init", start.init, Kind.MODEL),
            Reading("--loss", lesson.loss, Kind.CODE),
        ),
    )
    _check_checkpoint(source, lesson)
    file = load_model(source)
    refuse_beyond_memory(source, file.size_bytes, advice="free some, or take onnxq dynamic")
    job = _Job(
        file=file,
        train=train,
        validation=validation,
        start=start,
        lesson=lesson,
        training=training,
        keep_metadata=keep_metadata,
        progress=progress or (lambda _label: pass_through),
        report=report or (lambda _status: None),
    )
    with explain_damage(source), stage_output(destination) as staged:
        result = job.run(staged, force=force, in_place=in_place)
        verification = publish_verified(
            file, staged, result.verification, force=force, in_place=in_place
        )
        return replace(result, output=destination, verification=verification)


def _check_checkpoint(source: Path, lesson: LessonOptions) -> None:
    """Refuse before the work what would fail after it."""
    from onnxq.training.checkpoints import check_checkpoint

    if lesson.checkpoint is not None:
        check_output(source, lesson.checkpoint, force=True, option="--checkpoint")
        if lesson.resume:
            check_checkpoint(lesson.checkpoint)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One run, with everything that its steps share."""

    file: ModelFile
    train: Samples
    validation: Samples | None
    start: StartOptions
    lesson: LessonOptions
    training: TrainingOptions
    keep_metadata: bool
    progress: Progress
    report: Callable[..., None]

    @property
    def source(self) -> Path:
        """The float model."""
        return self.file.path

    def run(self, staged: Output, *, force: bool, in_place: bool) -> TrainingResult:
        """Start, train, write, choose the better one, verify."""
        work = staged.staged_path.parent / "work"
        work.mkdir()
        starter = self._starter(work)
        judge = starter.judge
        begun = starter.make()
        file = load_model(begun.path)
        tuned = self._train(file.model, starter, begun)
        write_model(file, staged, force=force, in_place=in_place)
        trained = judge.measure(staged.staged_path)
        kept = tuned.history.gained and self._is_better(trained, begun.likeness)
        if tuned.history.gained and not kept:
            write_model(load_model(begun.path), staged, force=True, in_place=in_place)
        refuse_changed(file)
        shutil.rmtree(work)
        return TrainingResult(
            source=self.source,
            output=staged.path,
            start=str(self.start.init or "static"),
            start_result=begun.result,
            baseline=begun.baseline,
            begun=begun.likeness,
            reached=trained if kept else begun.likeness,
            synthetic=begun.synthetic_count,
            tuned=tuned,
            kept=kept,
            float_size_bytes=self.file.size_bytes,
            size_bytes=staged.size_bytes(),
            verification=self._verify(staged, judge.held_back),
            notes=self._notes(tuned, kept=kept, start_db=begun.likeness.held_back_db),
        )

    def _starter(self, work: Path) -> Starter:
        if self.validation is None:
            held_back = verification_part(self.train, Session(self.source).inputs)
        else:
            held_back = Part(self.validation, None, self.validation.label)
        folder = work / "variants"
        folder.mkdir()
        seed = self.training.seed
        return Starter(
            source=self.source,
            samples=self.train,
            judge=Judge.prepare(self.source, held_back, folder, seed=seed, progress=self.progress),
            start=self.start,
            training=self.training,
            keep_metadata=self.keep_metadata,
            progress=self.progress,
            work=work,
        )

    def _train(self, model: Any, starter: Starter, begun: Start) -> Tuned:
        from onnxq.training.fine_tuning import fine_tune
        from onnxq.training.school import Lesson

        is_whole = self.validation is not None
        lesson = Lesson(
            source=self.source,
            folder=starter.work,
            train=Part(self.train, None, self.train.label)
            if is_whole
            else calibration_part(self.train),
            validation=starter.judge.held_back,
            variants=starter.judge.variants,
            synthetic=begun.synthetic,
            labels=self._labels(),
            loss_function=self.lesson.loss,
            layers=self.lesson.layers,
            bits=self.start.bits_weights or 8,
            float_model=starter.simplify(),
            checkpoint=self.lesson.checkpoint,
            resume=self.lesson.resume,
            blockwise=self.lesson.blockwise,
            keeps_integers=self.lesson.keeps_integers,
            steps=self.start.steps,
            fingerprint=self._fingerprint(begun),
        )
        return fine_tune(model, lesson, self.training, self.report)

    def _labels(self) -> Labels | None:
        if self.lesson.labels is None:
            return None
        return find_labels(None, self.lesson.labels)

    def _fingerprint(self, begun: Start) -> str:
        """Changes with the start, the samples, and whatever changes the steps."""
        total = hashlib.sha256(begun.path.read_bytes())
        options = self.training
        facts = (
            self.train.fingerprint(),
            begun.synthetic_count,
            options.epochs,
            self.start.steps,
            options.batch_size,
            options.learning_rate,
            options.gradient_clipping,
            options.seed,
            self.lesson.layers,
            self.lesson.keeps_integers,
        )
        total.update(repr(facts).encode())
        return total.hexdigest()

    def _is_better(self, trained: Likeness, begun: Likeness) -> bool:
        """Whether the file is better, too, and not only the simulation, and by more than chance.

        A loss of the user or of labels may cost likeness to the float model.
        """
        if self.lesson.loss is not None or self.lesson.labels is not None:
            return True
        before, after = begun.held_back_db, trained.held_back_db
        if before is None:
            return True
        gains = after is not None and after > before + BETTER_BY_DB
        return gains and trained.is_better_than(begun)

    def _verify(self, staged: Output, held_back: Part) -> Verification:
        return verify(
            self.source,
            staged.staged_path,
            data=held_back,
            hints=find_hints(self.file.model),
            size_bytes=self.file.size_bytes,
            track=self.progress("comparing"),
            needs_fusion=self.start.init is None and self.start.target.folds_casts,
        )

    def _notes(self, tuned: Tuned, *, kept: bool, start_db: float | None) -> tuple[str, ...]:
        notes = list(tuned.notes)
        if self.start.init is not None and start_db is not None and start_db < 0:
            notes.append(
                f"WARNING: {self.start.init} has {start_db:.1f} dB before training, which is more "
                f"noise than signal: is it a form of {self.source}?"
            )
        stopped = tuned.history.stopped
        if stopped:
            notes.append(f"{stopped}: the best so far was taken")
        if not kept:
            more = "" if self.lesson.keeps_integers else "; --keep-integers may gain, training less"
            notes.append(
                f"training gained nothing: the result is the model that it started from{more}"
            )
        return tuple(notes)
