"""Rebuild the sample models and their calibration and evaluation data.

How to run, from anywhere:

    pip install torch scikit-learn onnx onnxruntime
    python sample_models/build.py

It trains four small digit classifiers on scikit-learn's `load_digits` (nothing is downloaded),
writes `sample_models/*.onnx` and `calib_data/*`, then prints what it measured with onnxruntime.
Every random draw is seeded. It takes two to three minutes on two CPU cores.
"""

import json
import shutil
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from networks import DigitCnn, DigitLstm, DigitMlp, DigitTransformer
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

MODEL_FOLDER = Path(__file__).resolve().parent
DATA_FOLDER = MODEL_FOLDER.parent / "calib_data"
OPSET = 17
OUTPUT_NAME = "logits"
SPLIT_SEED = 20240
CALIBRATION_COUNT = 96
EVALUATION_COUNT = 512
EVALUATION_BATCH = 32
TRAINING_BATCH = 64


@dataclass(frozen=True)
class Digits:
    """One part of the data set: pictures in [0, 1] of shape (N, 8, 8) and their labels."""

    pictures: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class Recipe:
    """All that sets one sample model apart from the others."""

    name: str
    network: Callable[[], nn.Module]
    input_name: str
    to_input: Callable[[torch.Tensor, torch.Generator], torch.Tensor]
    seed: int
    epochs: int
    learning_rate: float
    # BatchNormalization survives the export only when nothing is folded.
    fold_on_export: bool = True


def load_splits() -> tuple[Digits, Digits, Digits]:
    """Split the source pictures once, so that no picture is in two of the three parts."""
    digits = load_digits()
    pictures = torch.tensor(digits.images / 16.0, dtype=torch.float32)
    labels = torch.tensor(digits.target, dtype=torch.int64)
    order = torch.tensor(np.random.default_rng(SPLIT_SEED).permutation(len(labels)))
    held_out = CALIBRATION_COUNT + EVALUATION_COUNT
    calibration, evaluation = order[:CALIBRATION_COUNT], order[CALIBRATION_COUNT:held_out]
    training = order[held_out:]
    parts = [Digits(pictures[part], labels[part]) for part in (training, calibration, evaluation)]
    return parts[0], parts[1], parts[2]


def disturb(
    pictures: torch.Tensor,
    generator: torch.Generator,
    *,
    digit_size: int,
    canvas_size: int,
    largest_shift: int,
    noise: float,
) -> torch.Tensor:
    """Scale each digit, put it on a larger canvas at a random place, and add noise.

    The clean digits are too easy: a float model near 100 % would hide what quantizing costs.
    """
    scaled = functional.interpolate(
        pictures[:, None], size=(digit_size, digit_size), mode="bilinear", align_corners=False
    )[:, 0]
    margin = (canvas_size - digit_size) // 2 + largest_shift
    padded = functional.pad(scaled, (margin, margin, margin, margin))
    corners = torch.randint(0, 2 * largest_shift + 1, (len(pictures), 2), generator=generator)
    shifted = torch.stack(
        [
            picture[top : top + canvas_size, left : left + canvas_size]
            for picture, (top, left) in zip(padded, corners.tolist(), strict=True)
        ]
    )
    return (shifted + noise * torch.randn(shifted.shape, generator=generator)).clamp(0.0, 1.0)


def to_pixels(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Make the 64 pixels of an 8x8 picture in one row."""
    canvas = disturb(pictures, generator, digit_size=8, canvas_size=8, largest_shift=1, noise=0.12)
    return canvas.flatten(1)


def to_image(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Make a one-channel 16x16 picture."""
    canvas = disturb(pictures, generator, digit_size=12, canvas_size=16, largest_shift=2, noise=0.2)
    return canvas[:, None]


def to_rows(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Make sixteen time steps, each a row of sixteen pixels."""
    return disturb(pictures, generator, digit_size=12, canvas_size=16, largest_shift=2, noise=0.1)


def to_tokens(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Make twenty-five patch codes: each 2x2 patch, at four grey levels, is one of 4**4 words."""
    canvas = disturb(pictures, generator, digit_size=8, canvas_size=10, largest_shift=1, noise=0.08)
    levels = (canvas * 4).long().clamp(max=3)
    patches = levels.unfold(1, 2, 2).unfold(2, 2, 2).flatten(1, 2).flatten(2)
    return (patches * torch.tensor([64, 16, 4, 1])).sum(dim=-1)


def train(recipe: Recipe, digits: Digits) -> nn.Module:
    """Train on freshly disturbed pictures every epoch; the other two parts play no role."""
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    network = recipe.network()
    optimizer = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=0.01)
    steps_per_epoch = -(-len(digits.labels) // TRAINING_BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.epochs * steps_per_epoch
    )
    network.train()
    for _ in range(recipe.epochs):
        inputs = recipe.to_input(digits.pictures, generator)
        order = torch.randperm(len(digits.labels), generator=generator)
        for batch in order.split(TRAINING_BATCH):
            loss = functional.cross_entropy(
                network(inputs[batch]), digits.labels[batch], label_smoothing=0.05
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def export(recipe: Recipe, network: nn.Module, example: torch.Tensor) -> Path:
    """Write the network as float32 ONNX with a dynamic batch axis."""
    path = MODEL_FOLDER / f"{recipe.name}.onnx"
    mode = torch.onnx.TrainingMode
    with warnings.catch_warnings():
        # The exporter warns about its own deprecation and about the batch size of any LSTM.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (example,),
            path,
            input_names=[recipe.input_name],
            output_names=[OUTPUT_NAME],
            dynamic_axes={recipe.input_name: {0: "batch"}, OUTPUT_NAME: {0: "batch"}},
            opset_version=OPSET,
            do_constant_folding=recipe.fold_on_export,
            training=mode.EVAL if recipe.fold_on_export else mode.PRESERVE,
            dynamo=False,
        )
    model = onnx.load(path)
    name_folded_weights(model.graph)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def name_folded_weights(graph: onnx.GraphProto) -> None:
    """Call the exporter's numbered weights (onnx::MatMul_123) by their node and their role."""
    new_names: dict[str, str] = {}
    for node in graph.node:
        roles = onnx.defs.get_schema(node.op_type, OPSET).inputs
        for index, name in enumerate(node.input):
            if name.startswith("onnx::") and any(name == item.name for item in graph.initializer):
                new_names.setdefault(name, f"{node.name}.{roles[index].name}")
                node.input[index] = new_names[name]
    for item in graph.initializer:
        item.name = new_names.get(item.name, item.name)


def write_data(recipe: Recipe, calibration: Digits, evaluation: Digits) -> None:
    """Write one calibration sample a file, and the evaluation samples in batches with labels."""
    folder = DATA_FOLDER / recipe.name
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("calib", "eval"):
        (folder / part).mkdir(parents=True)
    generator = torch.Generator().manual_seed(recipe.seed + 1)
    inputs = recipe.to_input(calibration.pictures, generator).numpy()
    for index in range(len(inputs)):
        path = folder / "calib" / f"sample_{index:03d}.npz"
        np.savez(path, **{recipe.input_name: inputs[index : index + 1]})
    inputs = recipe.to_input(evaluation.pictures, generator).numpy()
    labels: dict[str, list[int]] = {}
    for index, start in enumerate(range(0, len(inputs), EVALUATION_BATCH)):
        part = slice(start, start + EVALUATION_BATCH)
        stem = f"batch_{index:02d}"
        np.savez(folder / "eval" / f"{stem}.npz", **{recipe.input_name: inputs[part]})
        labels[stem] = evaluation.labels[part].tolist()
    lines = ",\n".join(f'    "{stem}": {json.dumps(label)}' for stem, label in labels.items())
    (folder / "labels.json").write_text(
        f'{{\n  "kind": "classes",\n  "output": "{OUTPUT_NAME}",\n  "main": "{OUTPUT_NAME}",\n'
        f'  "topk": [1],\n  "y": {{\n{lines}\n  }}\n}}\n',
        encoding="utf-8",
    )


def report(recipe: Recipe, path: Path) -> None:
    """Read back what was written and print the figures that the READMEs quote."""
    graph = onnx.load(path).graph
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    truth = json.loads((DATA_FOLDER / recipe.name / "labels.json").read_text(encoding="utf-8"))
    correct = total = 0
    for stem, labels in truth["y"].items():
        with np.load(DATA_FOLDER / recipe.name / "eval" / f"{stem}.npz") as batch:
            logits = session.run([OUTPUT_NAME], dict(batch))[0]
        correct += int((logits.argmax(axis=1) == labels).sum())
        total += len(labels)
    # Shapes and indices are int64 initializers: they are no parameters.
    floats = [item for item in graph.initializer if item.data_type == onnx.TensorProto.FLOAT]
    parameters = sum(int(np.prod(item.dims)) for item in floats)
    operators = Counter(node.op_type for node in graph.node)
    print(
        f"{path.name}: {path.stat().st_size} bytes, {parameters} parameters, "
        f"accuracy {correct}/{total} = {correct / total:.2%}\n"
        f"  input {session.get_inputs()[0].name} {session.get_inputs()[0].shape} "
        f"{session.get_inputs()[0].type}\n"
        f"  {', '.join(f'{name} {count}' for name, count in sorted(operators.items()))}",
        flush=True,
    )


RECIPES = (
    Recipe("mlp", DigitMlp, "pixels", to_pixels, seed=1, epochs=100, learning_rate=3e-3),
    Recipe(
        "cnn", DigitCnn, "image", to_image, seed=2, epochs=30, learning_rate=5e-3,
        fold_on_export=False,
    ),
    Recipe("lstm", DigitLstm, "rows", to_rows, seed=3, epochs=90, learning_rate=5e-3),
    Recipe(
        "transformer", DigitTransformer, "tokens", to_tokens, seed=4, epochs=160,
        learning_rate=4e-3,
    ),
)  # fmt: skip


def main() -> None:
    """Build every sample model with its data, and print its figures."""
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    training, calibration, evaluation = load_splits()
    for recipe in RECIPES:
        network = train(recipe, training)
        example = recipe.to_input(calibration.pictures[:2], torch.Generator().manual_seed(0))
        path = export(recipe, network, example)
        write_data(recipe, calibration, evaluation)
        report(recipe, path)


if __name__ == "__main__":
    main()
