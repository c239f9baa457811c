"""onnxq against onnxruntime's quantizer on a folder of models: accuracy, size, speed, cost.

    python benchmarks/zoo.py ZOO_DIR [--models-dir DIR] [--only NAME...] [--markdown FILE]

ZOO_DIR/NAME/eval/*.npz are samples (keys are input names), ZOO_DIR/NAME/labels.json says how to
measure the task, both optional; DIR/NAME/model.onnx is the model (DIR: ZOO_DIR if not given).
Without samples only sizes, CPU time and memory are measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from processes import run_measured, run_script
from settings import INCUMBENTS, ONNXQ_FP16, ONNXQ_INT8, ONNXQ_INT8_COMPUTE, Setting
from tables import report
from zoo_report import NOTES, Result, make_tables, shrinks_a_little

ONNXQ_BY_WEIGHTS = {"int8": ONNXQ_INT8, "fp16": ONNXQ_FP16}
CONTROL = "float"


def main() -> int:
    """Run the command line; exit code 1 if there was no model to measure."""
    options = parse_arguments()
    models = find_models(options)
    if not models:
        print(f"{options.models_dir or options.zoo_dir}: no NAME/model.onnx", file=sys.stderr)
        return 1
    results: list[Result] = []
    for name, model in models.items():
        print(f"{name} ...", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            results += measure_model(name, model, Path(folder), options)
        if options.json:
            options.json.write_text(json.dumps([one.to_json() for one in results], indent=1))
    report("onnxq on the zoo", NOTES, make_tables(results), options.markdown)
    return 0


def parse_arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("zoo_dir", type=Path, help="folder with NAME/eval and NAME/labels.json")
    parser.add_argument("--models-dir", type=Path, help="folder with NAME/model.onnx")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these models")
    parser.add_argument("--weights", default="int8,fp16", help="types, separated by commas")
    parser.add_argument("--rounds", type=int, default=25, help="latency measurements of each model")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds for them, by model")
    parser.add_argument("--markdown", type=Path, help="write the tables here")
    parser.add_argument("--json", type=Path, help="write all figures here, after every model")
    options = parser.parse_args()
    unknown = set(options.weights.split(",")) - set(ONNXQ_BY_WEIGHTS)
    if unknown:
        parser.error(f"--weights: {', '.join(sorted(unknown))}; known: int8, fp16")
    return options


def find_models(options: argparse.Namespace) -> dict[str, Path]:
    """The models to measure, by name."""
    folder = options.models_dir or options.zoo_dir
    found = {path.parent.name: path for path in sorted(folder.glob("*/model.onnx"))}
    return {name: found[name] for name in options.only or found if name in found}


def measure_model(
    name: str, model: Path, folder: Path, options: argparse.Namespace
) -> list[Result]:
    """All settings on one model, the float model itself first."""
    weights = options.weights.split(",")
    results = [Result(name, None, size_bytes=read_float_size(model))]
    results += [quantize(name, model, setting, folder) for setting in INCUMBENTS]
    little = shrinks_a_little(results)
    settings = [ONNXQ_BY_WEIGHTS[one] for one in weights]
    if "int8" in weights and little:
        settings.insert(settings.index(ONNXQ_INT8) + 1, ONNXQ_INT8_COMPUTE)
    results += [quantize(name, model, setting, folder) for setting in settings]
    eval_dir = options.zoo_dir / name / "eval"
    if eval_dir.is_dir():
        add_scores(results, model, folder, options)
    else:
        print(f"  {eval_dir}: no samples, so no accuracy and no latency")
    return results


def quantize(
    name: str,
    model: Path,
    setting: Setting,
    folder: Path,
    samples: Path | None = None,
    *,
    python: str | None = None,
) -> Result:
    """Quantize once, in a process of its own.

    Args:
        name: of the model.
        model: its file.
        setting: how to quantize it.
        folder: for the result.
        samples: folder of those to calibrate on, where the setting does.
        python: interpreter of an environment that has the tool; None for this one.
    """
    output = folder / setting.name / "model.onnx"
    output.parent.mkdir()
    arguments = [setting.name, str(model), str(output), *([str(samples)] if samples else [])]
    process = run_script("quantize_once.py", *arguments, python=python)
    told = process.read_json()
    result = Result(name, setting, cpu_s=process.cpu_s, peak_bytes=process.peak_bytes)
    if "error" in told:
        result.error = told["error"].replace(f"{model}: ", "")
        print(f"  {setting.label}: {result.error[:160]}")
    else:
        result.size_bytes = sum(path.stat().st_size for path in output.parent.iterdir())
        result.stages = told.get("stages", [])
    return result


def add_scores(
    results: list[Result],
    model: Path,
    folder: Path,
    options: argparse.Namespace,
    *,
    exact: bool = False,
) -> None:
    """Accuracy and latency of every result that is there, measured in one process.

    Args:
        results: the float model first.
        model: the float model.
        folder: where the results are.
        options: of the command line.
        exact: measure accuracy alone, on arithmetic without saturation.
    """
    data = options.zoo_dir / results[0].model
    labels = data / "labels.json"
    arguments = [str(model), str(data / "eval")]
    arguments += [
        f"{one.setting.name}={folder / one.setting.name / 'model.onnx'}"
        for one in results
        if one.setting is not None and not one.error
    ]
    arguments += ["--labels", str(labels)] if labels.exists() else []
    arguments += ["--rounds", str(options.rounds), "--budget", str(options.budget)]
    arguments += ["--exact"] if exact else []
    scores = run_script("score_models.py", *arguments).read_json()
    if "error" in scores:
        print(f"  scoring failed: {scores['error']}")
        return
    main_output = json.loads(labels.read_text()).get("main") if labels.exists() else None
    for result in results:
        found: dict[str, Any] = scores.get(result.setting.name if result.setting else CONTROL, {})
        result.error = result.error or found.get("error", "")
        result.score = {} if "error" in found else found
        result.main_output = main_output


def read_float_size(model: Path) -> int:
    """Bytes of a float model, external data included."""
    command = [sys.executable, "-m", "onnxq", "inspect", str(model), "--json"]
    inspected = json.loads(run_measured(command).output)
    return int(inspected["size_bytes"])


if __name__ == "__main__":
    sys.exit(main())
