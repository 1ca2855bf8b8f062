"""Other forms of the same weights: an ONNX file, or the same safetensors meant for another engine."""

import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from bedside.core.errors import UsageError
from bedside.core.files import write_atomic
from bedside.core.model import Model, put_model
from bedside.core.record import Part
from bedside.core.task import Engine
from bedside.core.workspace import Workspace
from bedside.engines.torch import load_network

if TYPE_CHECKING:
    import onnx
    import torch

OPSET = 20
"""Of the standard ONNX operators: the oldest that torch 2.13 writes without converting afterwards."""
_CHATTY = "torch.onnx._internal.exporter._registration"


def restage(model: Model, engine: Part, *, workspace: Workspace) -> Model:
    """Store `model` in the form that `engine` runs, as a new model with `model` for a parent.

    Args:
        model: safetensors weights.
        engine: the engine that the new model names.
        workspace: whose store takes it.

    Raises:
        UsageError: the network cannot be written as ONNX.
    """
    wanted = cast("Engine", engine).model_format
    spec = model.spec.model_copy(update={"format": wanted, "parent": model.digest, "engine": engine.settings()})
    with workspace.staging() as staged:
        if wanted == "onnx":
            write_atomic(staged / "model.onnx", export_onnx(model), doing="exporting a model")
        else:
            shutil.copyfile(model.weights, staged / model.weights.name)
        return put_model(workspace, staged, spec)


def export_onnx(model: Model) -> bytes:
    """Return the model as one ONNX file: windows "image" (batch, C_in, I, J, K) to "output" (batch, C_out, I, J, K).

    The patch is fixed, the batch free. Everything that names this machine or our code (torch writes stack traces into every
    node) is taken out, so the same weights give the same bytes.

    Raises:
        UsageError: the network cannot be written as ONNX.
    """
    import torch

    spec = model.spec
    net = load_network(model)
    windows = torch.zeros(1, spec.in_channels, *spec.patch)
    graph = _trace(net, windows)
    strip(graph)
    graph.producer_name = "bedside"
    graph.producer_version = ""
    return bytes(graph.SerializeToString(deterministic=True))


def _trace(net: "torch.nn.Module", windows: "torch.Tensor") -> "onnx.ModelProto":
    import torch
    from torch.onnx import OnnxExporterError

    try:
        with _quiet():
            program = torch.onnx.export(
                net,
                (windows,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["image"],
                output_names=["output"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except OnnxExporterError as error:
        raise UsageError(
            f"The network {type(net).__name__} cannot be written as ONNX; take an engine that runs safetensors.", code="EXPORT"
        ) from error
    assert program is not None
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch 2.13 says of itself: a deprecation in its own copy of a tree, and that torchvision is absent."""
    log = logging.getLogger(_CHATTY)
    before = log.disabled
    log.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".*LeafSpec", category=FutureWarning)
            yield
    finally:
        log.disabled = before


def strip(model: "onnx.ModelProto") -> None:
    """Take out, in place, all that does not change what is computed: stack traces, paths, names of classes, comments."""
    graph = model.graph
    model.doc_string = graph.doc_string = ""
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
    del graph.value_info[:]
    del graph.quantization_annotation[:]
