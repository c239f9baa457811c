"""Sessions of onnxruntime on the CPU, with its errors mapped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from onnxq.errors import ExecutionError
from onnxq.runtime.library import onnxruntime

Feeds = Mapping[str, npt.NDArray[Any]]

_FATAL_ONLY = 4

_OPTIMIZATION_LEVELS: Mapping[str, Any] = {
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}

_NUMPY_TYPES: Mapping[str, Any] = {
    "float": np.float32,
    "double": np.float64,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "int8": np.int8,
    "uint8": np.uint8,
    "int16": np.int16,
    "uint16": np.uint16,
    "int32": np.int32,
    "uint32": np.uint32,
    "int64": np.int64,
    "uint64": np.uint64,
    "bool": np.bool_,
    "string": np.object_,
}


@dataclass(frozen=True)
class InputSignature:
    """One input of a model.

    Attributes:
        name: of the input.
        dtype: numpy type of its elements; None for an input that is no tensor.
        shape: sizes; a name or None where the size is free.
    """

    name: str
    dtype: npt.DTypeLike | None
    shape: tuple[int | str | None, ...]

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        kind = "not a tensor" if self.dtype is None else np.dtype(self.dtype).name
        return f"{self.name}: {kind}[{sizes}]"


class Session:
    """A loaded model."""

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 0,
        optimized_path: Path | None = None,
        mapped: bool = False,
        optimization: str = "all",
        spinning: bool = False,
        lean: bool = False,
        keeps_float_layers: bool = False,
    ) -> None:
        """Load ``path``.

        Args:
            path: of the model.
            threads: for one operator; 0 lets onnxruntime choose.
            optimized_path: where to write the graph as the runtime optimised it.
            mapped: leave weights in their file and optimise nothing, to load a model that is
                larger than memory; it runs slowly.
            optimization: what the optimiser may do: 'all', as users get it, or 'none'; always
                none where ``mapped``.
            spinning: let threads spin between the operators of a run, which onnxruntime does by
                default; they never do between runs.
            lean: take less memory for activations: freed after each operator, not kept in the
                pattern of the first run.
            keeps_float_layers: do not let the optimiser quantize the weights of float layers that
                stand between quantized activations.

        Raises:
            ExecutionError: it does not load.
            ValueError: there is no such ``optimization``.
        """
        if optimization not in _OPTIMIZATION_LEVELS:
            raise ValueError(f"optimization is 'all' or 'none', not '{optimization}'")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = _FATAL_ONLY
        if lean:
            options.enable_mem_pattern = False
        options.graph_optimization_level = _OPTIMIZATION_LEVELS["none" if mapped else optimization]
        # Threads that spin take processor time from whatever runs beside: between operators from
        # other processes, between runs from the other models in this one, which then take twice
        # as long.
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if keeps_float_layers:
            options.add_session_config_entry(
                "optimization.disable_specified_optimizers", "WeightBiasQuantization"
            )
        if mapped:
            options.add_session_config_entry("session.disable_prepacking", "1")
        if optimized_path is not None:
            options.optimized_model_filepath = str(optimized_path)
            options.add_session_config_entry(
                "session.optimized_model_external_initializers_file_name",
                f"{optimized_path.name}.data",
            )
            options.add_session_config_entry(
                "session.optimized_model_external_initializers_min_size_in_bytes", "1024"
            )
        if path.exists() and not path.is_file():
            raise ExecutionError(f"{path}: is not a regular file; name an .onnx file")
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises one type per status code
            reason = shorten_message(error, path) if path.exists() else "no such file"
            raise ExecutionError(
                f"{path}: onnxruntime cannot load it: {reason}", reason=reason
            ) from error
        self._path = path

    @property
    def inputs(self) -> tuple[InputSignature, ...]:
        """What the model takes."""
        return tuple(
            InputSignature(one.name, _numpy_type(one.type), tuple(one.shape))
            for one in self._session.get_inputs()
        )

    @property
    def output_names(self) -> tuple[str, ...]:
        """What it gives, in order."""
        return tuple(one.name for one in self._session.get_outputs())

    def run(self, feeds: Feeds, names: Sequence[str] | None = None) -> Sequence[Any]:
        """One inference; results in the order of ``names``, by default ``output_names``.

        Raises:
            ExecutionError: the model rejects the feeds or fails inside.
        """
        try:
            results: Sequence[Any] = self._session.run(names, dict(feeds))
        except Exception as error:  # as above
            reason = shorten_message(error, self._path)
            raise ExecutionError(
                f"{self._path}: onnxruntime cannot run it: {reason}", reason=reason
            ) from error
        return results


def shorten_message(error: Exception, path: Path | None = None, limit: int = 300) -> str:
    """An error of onnxruntime in one line of bearable length, with the path left out.

    >>> shorten_message(ValueError("[ONNXRuntimeError] : 1 : FAIL :  bad\\n node"))
    'bad node'
    """
    text = " ".join(str(error).split())
    if path is not None:
        text = text.replace(str(path), "the model")
    if text.startswith("[ONNXRuntimeError]"):
        text = text.split(" : ", 3)[-1]
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _numpy_type(name: str) -> npt.DTypeLike | None:
    if not name.startswith("tensor("):
        return None
    found: npt.DTypeLike | None = _NUMPY_TYPES.get(name[len("tensor(") : -1])
    return found
