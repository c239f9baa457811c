"""onnxq static with int4 weights at each level of accuracy; *fast* rounds to the nearest.

    python benchmarks/four_bits.py [ZOO_DIR --models-dir DIR --only NAME...] [--markdown FILE]

Always on sample_models/cnn.onnx, and on models in the layout of zoo.py.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from settings import ONNXQ_INT4
from tables import Table, report
from zoo import add_scores, find_models, quantize, read_float_size
from zoo_report import Result, format_sqnr, format_task

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = "cnn"
COLUMNS = ("model", "setting", "SQNR dB", "agreement", "task", "smaller", "speed-up", "CPU s")
NOTES = (
    "int4 weights with a scale and zero point for each channel, uint8 activations: `onnxq static "
    "--weights int4 --accuracy LEVEL`. *fast* rounds to the nearest integer. Integers of 4 bits "
    "are exact on every processor. Speed-up and CPU s as in zoo_static.py.",
)


def main() -> int:
    """Run the command line."""
    options = parse_arguments()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        sample = arrange_sample(Path(folder))
        places = [(SAMPLE, sample / SAMPLE / "model.onnx", sample)]
        if options.zoo_dir:
            found = find_models(options).items()
            places += [(name, model, options.zoo_dir) for name, model in found]
        for name, model, place in places:
            options.zoo_dir = place
            results = measure_model(name, model, options)
            rows += [make_row(one, results[0]) for one in results]
            report("4-bit weights", NOTES, [Table("Models", COLUMNS, rows)], options.markdown)
    return 0


def parse_arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("zoo_dir", type=Path, nargs="?", help="as for zoo_static.py")
    parser.add_argument("--models-dir", type=Path, help="folder with NAME/model.onnx")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these models")
    parser.add_argument("--rounds", type=int, default=25, help="latency measurements of each model")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds for them, by model")
    parser.add_argument("--markdown", type=Path, help="write the table here, after every model")
    return parser.parse_args()


def arrange_sample(folder: Path) -> Path:
    """The sample model in the layout of the zoo; its labels are not in that form."""
    place = folder / SAMPLE
    place.mkdir()
    (place / "model.onnx").symlink_to(ROOT / "sample_models" / f"{SAMPLE}.onnx")
    for part in ("calib", "eval"):
        (place / part).symlink_to(ROOT / "calib_data" / SAMPLE / part)
    return folder


def measure_model(name: str, model: Path, options: argparse.Namespace) -> list[Result]:
    """The float model and each level."""
    results = [Result(name, None, size_bytes=read_float_size(model))]
    with tempfile.TemporaryDirectory() as folder:
        samples = options.zoo_dir / name / "calib"
        results += [quantize(name, model, one, Path(folder), samples) for one in ONNXQ_INT4]
        add_scores(results, model, Path(folder), options)
    return results


def make_row(result: Result, reference: Result) -> Sequence[str]:
    """One line of the table."""
    is_float, agreement = result.setting is None, result.main.get("agreement")
    return [
        result.model,
        result.label,
        "" if is_float else format_sqnr(result.main),
        "" if is_float or agreement is None else f"{agreement:.4f}",
        format_task(result.task),
        "" if is_float else f"{reference.size_bytes / result.size_bytes:.2f}",
        f"{result.score['speedup']:.2f}" if "speedup" in result.score else "",
        "" if is_float else f"{result.cpu_s:.1f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
