"""Training block after block."""

from __future__ import annotations

import time
from itertools import count

import onnx
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch")

from onnxq.training.binding import bind  # noqa: E402
from onnxq.training.blocks import Segment, cut_program, make_part  # noqa: E402
from onnxq.training.blockwise import BlockwiseTrainer  # noqa: E402
from onnxq.training.examples import Example, Examples  # noqa: E402
from onnxq.training.interpreter import run  # noqa: E402
from onnxq.training.losses import Distillation  # noqa: E402
from onnxq.training.options import TrainingOptions  # noqa: E402
from onnxq.training.program import compile_model  # noqa: E402
from onnxq.training.student import Student  # noqa: E402
from tests.training.quantized_models import load, quantize, samples  # noqa: E402


def float_model() -> ir.Model:
    return ir.from_proto(onnx.load_from_string(quantize()[0]))


def names_inside() -> set[str]:
    return {value.name or "" for node in float_model().graph for value in node.outputs}


def make_student() -> tuple[Student, tuple[Segment, ...]]:
    model = load()
    quantities = bind(model)
    program = compile_model(model, trained=quantities.values)
    with torch.no_grad():
        known = quantities.compute()
    segments = cut_program(program, samples(1)[0], known, names_inside())
    return Student(program, quantities, stacks=True), segments


def teach(segments: tuple[Segment, ...], count: int) -> list[Example]:
    model = float_model()
    inside = {value.name: value for node in model.graph for value in node.outputs}
    program = compile_model(model)
    wanted = [inside[one.target] for one in segments]
    found = []
    for at, feeds in enumerate(samples(count)):
        with torch.no_grad():
            outputs = run(program, feeds, watched=wanted)
        targets = {name: one.numpy() for name, one in outputs.items()}
        found.append(Example(str(at), feeds, targets))
    return found


def test_segments_are_the_whole_graph_in_order() -> None:
    student, segments = make_student()
    assert [one.target for one in segments] == ["a", "c", "y"]
    covered = {step.node for one in segments for step in one.steps}
    assert covered == {step.node for step in student.program.block.steps}


def test_segments_one_after_the_other_give_what_the_whole_gives() -> None:
    student, segments = make_student()
    feeds = dict(samples(1)[0])
    with torch.no_grad():
        known = student.quantities.compute()
        whole = run(student.program, feeds, known)["y"]
        for segment in segments:
            part = make_part(student.program, segment)
            given = run(part, feeds, known)
            feeds |= {name: one.numpy() for name, one in given.items()}
    assert torch.equal(whole, given["y"])


def make_trainer(examples: list[Example], options: TrainingOptions) -> BlockwiseTrainer:
    student, segments = make_student()
    loss = Distillation({"y": 1.0})
    loss.measure(examples)
    return BlockwiseTrainer(
        student=student,
        segments=segments,
        train=Examples(lambda: iter(examples[:9])),
        validation=Examples(lambda: iter(examples[9:])),
        outputs=("y",),
        loss=loss,
        options=options,
        report=lambda _status: None,
    )


def test_the_time_is_shared_among_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = teach(make_student()[1], 12)
    ticks = count()
    # Each look at the clock finds it a hundredth of a second later.
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks) / 100)
    options = TrainingOptions(epochs=10**5, batch_size=3, learning_rate=1.0, time_limit_s=3.0)
    history = make_trainer(examples, options).fit()
    seconds = [point.seconds for point in history.points]
    # Without a share of its own the first block would take all of the time, the others none.
    assert seconds[1:] == pytest.approx([1.0, 2.0, 3.0], abs=0.2)
    assert history.stopped == "time limit"


def test_it_gains() -> None:
    examples = teach(make_student()[1], 12)
    trainer = make_trainer(
        examples, TrainingOptions(epochs=6, batch_size=3, learning_rate=1.0, threads=1)
    )
    history, student, segments = trainer.fit(), trainer.student, trainer.segments
    losses = [point.validation_loss for point in history.points]
    assert len(losses) == 1 + len(segments)
    assert losses[history.best] < 0.8 * losses[0]
    _, measured = student.measure([examples[9:]], ("y",), trainer.loss)
    assert measured == pytest.approx(losses[history.best], rel=1e-5)
