"""ONNX Runtime on the processor, behind a check that the file cannot reach outside itself."""

import os
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from bedside.core.model import Model
from bedside.core.record import Part
from bedside.core.task import FloatArray, Forward


class OnnxRuntimeEngine(Part):
    """Runs single-file ONNX models on the processor.

    Attributes:
        precision: of the whole computation.
        threads: processor threads; None: the processors this process may run on, at most OMP_NUM_THREADS where that is set (so
            that this engine and torch use the same number).
    """

    kind: ClassVar[str] = "engine"
    part_name: ClassVar[Literal["onnxruntime"]] = "onnxruntime"
    model_format: ClassVar[Literal["onnx"]] = "onnx"

    precision: Literal["fp32"] = "fp32"
    threads: Annotated[int, Field(gt=0)] | None = None

    def forward(self, model: Model) -> Forward:
        """Check the file, load it and return the function that computes one batch of windows.

        Raises:
            UsageError: the model is not ONNX.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads or available_threads()
        session = onnxruntime.InferenceSession(model.weights.read_bytes(), options, providers=["CPUExecutionProvider"])

        def compute(windows: FloatArray) -> FloatArray:
            output: FloatArray = session.run(None, {session.get_inputs()[0].name: windows})[0]
            return output

        return compute


def available_threads() -> int:
    """Processors that this process may run on, at most OMP_NUM_THREADS where that is set."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    allowed = len(os.sched_getaffinity(0))
    return min(allowed, int(limit)) if limit.isdigit() and int(limit) > 0 else allowed
