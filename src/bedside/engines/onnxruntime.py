"""ONNX Runtime on the processor, behind a check that the file cannot reach outside itself."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from bedside.core.errors import InputRejected, UnsafeArtefact, UsageError
from bedside.core.model import Model, ModelSpec
from bedside.core.record import Part
from bedside.core.task import FloatArray, Forward

if TYPE_CHECKING:
    import onnx
    import onnxruntime

MOST_BYTES = (1 << 31) - 1
MOST_NODES = 100_000
_DEFAULT_DOMAINS = frozenset({"", "ai.onnx"})


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
            UnsafeArtefact: the file names other files, brings its own operators, or passes the size limits.
            InputRejected: the file is not ONNX, a weight is NaN or infinite, or its input and output are not the model's.
        """
        if model.spec.format != "onnx":
            raise UsageError(
                f"The onnxruntime engine runs ONNX files, not {model.spec.format}; export the model first (bedside accelerate).",
                code="ENGINE_FORMAT",
            )
        size_bytes = model.weights.stat().st_size
        if size_bytes > MOST_BYTES:
            raise UnsafeArtefact(
                f"The ONNX file has {size_bytes} bytes; at most {MOST_BYTES} are allowed in one file.", code="ONNX_SIZE"
            )
        data = model.weights.read_bytes()
        check_onnx(data)
        session = _session(data, self.threads or available_threads())
        _check_ends(session, model.spec)
        (given,), (made,) = session.get_inputs(), session.get_outputs()

        def compute(windows: FloatArray) -> FloatArray:
            with _refusals():
                (output,) = session.run([made.name], {given.name: np.ascontiguousarray(windows, dtype=np.float32)})
            return np.asarray(output, dtype=np.float32)

        return compute


def available_threads() -> int:
    """Processors that this process may run on, at most OMP_NUM_THREADS where that is set."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    allowed = len(os.sched_getaffinity(0))
    return min(allowed, int(limit)) if limit.isdigit() and int(limit) > 0 else allowed


def check_onnx(data: bytes) -> None:
    """Refuse bytes that are not one self-contained ONNX graph of standard operators with finite weights.

    Raises:
        UnsafeArtefact: ONNX_EXTERNAL_DATA, ONNX_OPERATORS (another domain, or functions of its own), ONNX_SIZE.
        InputRejected: ONNX_PARSE, WEIGHTS_NOT_FINITE.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError) as error:
        raise _not_onnx() from error
    _check_operators(model)
    for tensor in _tensors(model.graph):
        _check_tensor(tensor)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise _not_onnx() from error


def _not_onnx() -> InputRejected:
    return InputRejected("The file of weights is not a sound ONNX graph; export the model again.", code="ONNX_PARSE")


def _graphs(graph: "onnx.GraphProto") -> Iterator["onnx.GraphProto"]:
    """The graph and every graph inside its nodes (branches and loops), without recursion."""
    waiting = [graph]
    while waiting:
        found = waiting.pop()
        yield found
        for node in found.node:
            for attribute in node.attribute:
                waiting.extend([attribute.g] if attribute.HasField("g") else [])
                waiting.extend(attribute.graphs)


def _tensors(graph: "onnx.GraphProto") -> Iterator["onnx.TensorProto"]:
    """Every constant: initializers and those in nodes' attributes, dense or sparse."""
    for found in _graphs(graph):
        yield from found.initializer
        sparse = list(found.sparse_initializer)
        for node in found.node:
            for attribute in node.attribute:
                yield from [attribute.t] if attribute.HasField("t") else []
                yield from attribute.tensors
                sparse.extend([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else [])
                sparse.extend(attribute.sparse_tensors)
        for pair in sparse:
            yield pair.values
            yield pair.indices


def _check_operators(model: "onnx.ModelProto") -> None:
    nodes = [node for graph in _graphs(model.graph) for node in graph.node]
    if len(nodes) > MOST_NODES:
        raise UnsafeArtefact(f"The ONNX graph has {len(nodes)} nodes; at most {MOST_NODES} are allowed.", code="ONNX_SIZE")
    domains = {node.domain for node in nodes} | {entry.domain for entry in model.opset_import}
    if not domains <= _DEFAULT_DOMAINS or model.functions or model.training_info:
        raise UnsafeArtefact(
            "The ONNX file brings operators or functions of its own; only the standard ONNX operators are run.",
            code="ONNX_OPERATORS",
        )


def _check_tensor(tensor: "onnx.TensorProto") -> None:
    import onnx

    if tensor.data_location != onnx.TensorProto.DEFAULT or tensor.external_data:
        raise UnsafeArtefact(
            "The ONNX file names another file for its weights; only a single file is opened.", code="ONNX_EXTERNAL_DATA"
        )
    if tensor.data_type == onnx.TensorProto.STRING:
        return
    try:
        values = onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise _not_onnx() from error
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    if tensor.data_type in floats and not np.isfinite(values.astype(np.float64)).all():
        raise InputRejected(
            "A weight in the ONNX file is NaN or infinite; train or export the model again.", code="WEIGHTS_NOT_FINITE"
        )


def _session(data: bytes, threads: int) -> "onnxruntime.InferenceSession":
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads would slow whoever runs next
    options.log_severity_level = 4
    with _refusals():
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


@contextmanager
def _refusals() -> Iterator[None]:
    """Map the exceptions of ONNX Runtime."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    known = (state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NotImplemented)
    try:
        yield
    except (*known, state.RuntimeException) as error:
        raise InputRejected(
            "ONNX Runtime cannot run this ONNX file; export the model again with this version.", code="ONNX_PARSE"
        ) from error


def _check_ends(session: "onnxruntime.InferenceSession", spec: ModelSpec) -> None:
    """One float32 input and output each, (B, C, I, J, K) with the model's channels and patch."""
    for what, ends, channels in (
        ("input", session.get_inputs(), spec.in_channels),
        ("output", session.get_outputs(), spec.out_channels),
    ):
        fits = len(ends) == 1 and ends[0].type == "tensor(float)" and list(ends[0].shape[1:]) == [channels, *spec.patch]
        if not fits:
            raise InputRejected(
                f"The ONNX file's {what} is not one float32 array of {channels} channels and the model's patch; export it again.",
                code="ONNX_SHAPE",
            )
