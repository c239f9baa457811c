"""Compare quantized models with their float model on samples.

    python benchmarks/score_models.py FLOAT EVAL_DIR [NAME=MODEL ...] [--labels FILE] [--rounds N]

zoo.py starts it in a fresh process for each float model. The last line of its output is JSON: for
each NAME, and for ``float`` again as a control, ``outputs``, ``task``, ``ms``, ``speedup`` and
counts of nodes (``count_nodes``), or ``error``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from exact_products import make_products_exact
from latency import measure_latencies
from tasks import Run, measure_task

Array = npt.NDArray[Any]
CONTROL = "float"
INTEGER_LAYERS = frozenset(
    {
        *("QLinearConv", "QLinearConvTranspose", "QLinearMatMul", "QGemm", "QAttention"),
        *("ConvInteger", "NhwcConvInteger", "MatMulInteger", "MatMulIntegerToFloat"),
        *("DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "QEmbedLayerNormalization"),
    }
)
FLOAT_LAYERS = frozenset(
    {"Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose", "MatMul", "FusedMatMul", "Gemm"}
    | {"FusedGemm", "LSTM", "GRU", "Attention"}
)
"""As the runtime names them after its own optimiser."""


def main() -> None:
    """Run the command line."""
    options = parse_arguments()
    if options.exact:
        make_products_exact()
    labels = json.loads(options.labels.read_text(encoding="utf-8")) if options.labels else {}
    folder = options.labels.parent if options.labels else Path()
    names, samples = read_samples(options.eval_dir)
    reference = run_model(options.float_model, names, samples, labels)
    paths = {CONTROL: options.float_model, **dict(one.split("=", 1) for one in options.models)}
    results: dict[str, dict[str, Any]] = {}
    for name, path in paths.items():
        try:
            quantized = run_model(path, names, samples, labels)
            results[name] = {
                "outputs": compare_outputs(reference, quantized, labels),
                "task": measure_task(labels, folder, quantized.run, reference.run),
                **count_nodes(path),
            }
        except Exception as error:  # onnxruntime raises one type per status code
            results[name] = {"error": " ".join(str(error).split())}
    if not options.exact:
        add_latencies(results, paths, reference, options)
    print(json.dumps(results))


def parse_arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("float_model")
    parser.add_argument("eval_dir", type=Path)
    parser.add_argument("models", nargs="*", metavar="NAME=MODEL")
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--exact", action="store_true", help="products, and so no latencies")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--budget", type=float, default=60.0, help="seconds for the latencies")
    return parser.parse_args()


def read_samples(folder: Path) -> tuple[list[str], list[dict[str, Array]]]:
    """Names and content of the .npz files of a folder."""
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise SystemExit(f"{folder}: no .npz files")
    samples = []
    for file in files:
        with np.load(file) as archive:
            samples.append({key: archive[key] for key in archive.files})
    return [file.stem for file in files], samples


@dataclass(frozen=True)
class Answers:
    """All outputs of one model on all samples."""

    output_names: list[str]
    results: list[list[Array]]
    run: Run


def run_model(
    path: str, names: list[str], samples: Sequence[dict[str, Array]], labels: dict[str, Any]
) -> Answers:
    """Load a model and run it on every sample."""
    session = load(path)
    inputs = {one.name for one in session.get_inputs()}
    feeds = [{key: sample[key] for key in inputs & set(sample)} for sample in samples]
    results = [session.run(None, one) for one in feeds]
    output_names = [one.name for one in session.get_outputs()]
    wanted = labels.get("output")
    index = output_names.index(wanted) if wanted in output_names else 0
    return Answers(
        output_names, results, Run(session, names, feeds, [one[index] for one in results])
    )


def load(path: str, *, threads: int = 0, optimized: str = "") -> onnxruntime.InferenceSession:
    """A session on the CPU that prints nothing but what ends it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    if optimized:
        options.optimized_model_filepath = optimized
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@dataclass
class Difference:
    """Sums over the samples of one floating-point output."""

    signal: float = 0.0
    noise: float = 0.0
    cosines: list[float] = field(default_factory=list)
    agreements: list[float] = field(default_factory=list)

    def add(self, expected: Array, measured: Array, *, scores: bool) -> None:
        """Count one sample; NaN and infinities count as 0."""
        if scores:
            same = expected.argmax(-1) == measured.argmax(-1)
            self.agreements.append(float(np.mean(same & np.isfinite(measured).all(-1))))
        a, b = (one.astype(np.float64).ravel() for one in (expected, measured))
        b = np.nan_to_num(b, posinf=0.0, neginf=0.0)
        self.signal += float(a @ a)
        self.noise += float((a - b) @ (a - b))
        norms = float(np.sqrt((a @ a) * (b @ b)))
        self.cosines.append(float(a @ b) / norms if norms else float(not (a.any() or b.any())))

    def to_json(self) -> dict[str, Any]:
        """SQNR over all samples together, the means of the others."""
        ratio = self.signal / self.noise if self.noise else 0.0
        return {
            "identical": self.noise == 0.0,
            "sqnr_db": 10 * float(np.log10(ratio)) if ratio > 0 else None,
            "cosine": float(np.mean(self.cosines)),
            "agreement": float(np.mean(self.agreements)) if self.agreements else None,
        }


def compare_outputs(
    expected: Answers, measured: Answers, labels: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Every output of floating-point type, by name."""
    found = {}
    for index, name in enumerate(expected.output_names):
        first = expected.results[0][index]
        if not isinstance(first, np.ndarray) or first.dtype.kind not in "fV":
            continue
        difference = Difference()
        scores = are_class_scores(name, first, labels)
        for a, b in zip(expected.results, measured.results, strict=True):
            if a[index].shape != b[index].shape:
                raise ValueError(f"output '{name}': {b[index].shape} for {a[index].shape}")
            if a[index].size:
                difference.add(a[index], b[index], scores=scores)
        found[name] = difference.to_json()
    return found


def are_class_scores(name: str, output: Array, labels: dict[str, Any]) -> bool:
    """Whether the largest element along the last axis means anything."""
    if output.ndim < 2 or output.shape[-1] < 2:
        return False
    if np.all(output >= -1e-6) and np.allclose(output.sum(-1, dtype=np.float64), 1, atol=1e-2):
        return True
    return labels.get("kind") != "embedding" and (output.ndim == 2 or "logit" in name.lower())


def add_latencies(
    results: dict[str, dict[str, Any]],
    paths: dict[str, str],
    reference: Answers,
    options: argparse.Namespace,
) -> None:
    """Milliseconds of each model that runs, and how many times faster than float it is."""
    sessions = {
        name: load(paths[name], threads=1) for name in results if "error" not in results[name]
    }
    # The float model twice: where the two differ, it is noise.
    sessions["reference"] = load(options.float_model, threads=1)
    found = measure_latencies(
        sessions, reference.run.samples, rounds=options.rounds, budget_s=options.budget
    )
    float_ms = (found[CONTROL] + found.pop("reference")) / 2
    for name, milliseconds in found.items():
        results[name] |= {"ms": milliseconds, "speedup": float_ms / milliseconds}


def count_nodes(path: str) -> dict[str, int]:
    """Nodes of some kinds in the graph that the runtime really runs."""
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        load(path, optimized=str(optimized))
        counts: Counter[str] = Counter()
        _count_in_graph(onnx.load(optimized).graph, frozenset(), counts)
    kinds = ("constant_dequantize", "integer_layers", "float_layers")
    return {kind: counts[kind] for kind in kinds}


def _count_in_graph(graph: onnx.GraphProto, outer: frozenset[str], counts: Counter[str]) -> None:
    constants = outer | {one.name for one in graph.initializer}
    constants |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            counts["constant_dequantize"] += 1
        counts["integer_layers"] += node.op_type in INTEGER_LAYERS
        counts["float_layers"] += node.op_type in FLOAT_LAYERS
        for attribute in node.attribute:
            bodies = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
            for body in bodies:
                _count_in_graph(body, constants, counts)


if __name__ == "__main__":
    main()
