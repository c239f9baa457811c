"""``onnxq.quantize_qat``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnxq.api.paths import optional_path, required_path

if TYPE_CHECKING:
    from onnxq.pipelines import Progress
    from onnxq.pipelines.qat_result import TrainingResult
    from onnxq.samples import ImageOptions, SampleOptions, Samples
    from onnxq.training.history import Report
    from onnxq.training.options import TrainingOptions


def quantize_qat(
    model: str | os.PathLike[str],
    train: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    *,
    val: str | os.PathLike[str] | None = None,
    reader: str | None = None,
    samples: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    images: ImageOptions | None = None,
    labels: str | os.PathLike[str] | None = None,
    loss: str | None = None,
    distill_layers: Sequence[str] = (),
    init: str | os.PathLike[str] | None = None,
    bits_weights: int | None = None,
    bits_activations: int | None = None,
    accuracy: str = "best",
    target: str = "ort-cpu",
    synthetic: int | None = None,
    blockwise: bool = False,
    keep_integers: bool = False,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    gradient_clipping: float = 4.0,
    time_limit: float | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    device: str = "auto",
    threads: int = 0,
    force: bool = False,
    in_place: bool = False,
    keep_metadata: bool = False,
    progress: Progress | None = None,
    report: Report | None = None,
) -> TrainingResult:
    """Fine-tune a model under fake quantization; needs the extra ``onnxq[qat]``.

    Args:
        model: path of the float model.
        train: folder of samples to learn from; None with ``reader``.
        output: path of the result; ``model.qat.onnx`` beside the model if None.
        val: folder of samples to choose by; every fifth sample of ``train`` if None.
        reader: 'module:function' that gives samples to learn from.
        samples: use so many of them; None for all.
        seed: chooses which, and their order.
        skip_bad: go on without samples that do not fit.
        images: how images become inputs.
        labels: file with classes; None to learn from the float model alone.
        loss: 'module:function' of a loss; see docs/qat.md.
        distill_layers: tensors inside that are compared, too.
        init: quantized model to start from; None for the best result of static mode.
        bits_weights: 8, 4, 3 or 2; None for 8.
        bits_activations: 8 or 4; None for 8.
        accuracy: level of static mode, for the start.
        target: name of a target.
        synthetic: samples that the float model makes up; None for up to 256 where bits are few.
        blockwise: train block after block.
        keep_integers: train scales, biases and floats only.
        epochs: passes over the samples; None for about 3000 steps, 6000 with activations
            of 4 bits, fewer where the model is large.
        batch_size: samples a step; None for 32, or 8 where the model is large.
        learning_rate: factor on the learning rates; None to find it in a short trial.
        gradient_clipping: a gradient longer than so many times the usual one is cut; 0 for never.
        time_limit: seconds of training after which the best so far is taken.
        checkpoint: file to write while training.
        resume: go on from that file.
        device: auto, cpu or cuda.
        threads: of torch; 0 for its default.
        force: replace an output that exists.
        in_place: replace the model itself.
        keep_metadata: keep the texts that exporters leave at nodes for debugging.
        progress: as for ``quantize_static``.
        report: is told of each step.

    Raises:
        OnnxqError: one of its kinds, with one line of text; no output file is left then.
    """
    from onnxq.training.availability import require_torch

    require_torch()
    from onnxq.pipelines.qat import run_qat
    from onnxq.pipelines.qat_options import LessonOptions, StartOptions
    from onnxq.samples import SampleOptions, open_samples
    from onnxq.targets import find_target

    every = SampleOptions(skip_bad=skip_bad, images=images)
    return run_qat(
        required_path(model),
        optional_path(output),
        train=_open_training(optional_path(train), reader, every, limit=samples, seed=seed),
        validation=None if val is None else open_samples(required_path(val), options=every),
        start=StartOptions(
            init=optional_path(init),
            bits_weights=bits_weights,
            bits_activations=bits_activations,
            accuracy=accuracy,
            target=find_target(target),
            synthetic=synthetic,
        ),
        lesson=LessonOptions(
            labels=optional_path(labels),
            loss=loss,
            layers=tuple(distill_layers),
            checkpoint=optional_path(checkpoint),
            resume=resume,
            blockwise=blockwise,
            keeps_integers=keep_integers,
        ),
        training=_choose_training(
            epochs, batch_size, learning_rate, gradient_clipping, seed, time_limit, device, threads
        ),
        force=force,
        in_place=in_place,
        keep_metadata=keep_metadata,
        progress=progress,
        report=report,
    )


def _open_training(
    folder: Path | None, reader: str | None, every: SampleOptions, *, limit: int | None, seed: int
) -> Samples:
    from onnxq.samples import open_samples

    options = replace(every, limit=limit, seed=seed)
    return open_samples(folder, reader=reader, options=options, folder_option="--train DIR")


def _choose_training(
    epochs: int | None,
    batch_size: int | None,
    learning_rate: float | None,
    gradient_clipping: float,
    seed: int,
    time_limit: float | None,
    device: str,
    threads: int,
) -> TrainingOptions:
    from onnxq.training.options import TrainingOptions

    return TrainingOptions(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        gradient_clipping=gradient_clipping,
        seed=seed,
        time_limit_s=time_limit,
        device=device,
        threads=threads,
    )
