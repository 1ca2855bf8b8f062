"""Claims about hostile and broken ONNX files: nothing outside the file is touched, and each has its named refusal."""

from contextlib import suppress

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import bedside.engines.onnxruntime as room
from bedside.core.errors import InputRejected, UnsafeArtefact
from bedside.core.model import put_model
from bedside.engines.onnxruntime import OnnxRuntimeEngine, available_threads, check_onnx

SHAPE = ["batch", 1, 16, 16, 16]


def graph_of(nodes, weights, *, output_shape=("batch", 3, 16, 16, 16), opsets=None, functions=()):
    """A model from "image" to "output"."""
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, list(output_shape))],
        initializer=weights,
    )
    model = helper.make_model(graph, opset_imports=opsets or [helper.make_opsetid("", 20)], functions=list(functions))
    model.ir_version = 10
    return model


def pointwise(weight=None):
    """A 1 x 1 x 1 convolution from one channel to three."""
    values = np.array([1.0, -2.0, 0.5], dtype=np.float32).reshape(3, 1, 1, 1, 1) if weight is None else weight
    tensor = numpy_helper.from_array(values, "weight")
    return graph_of([helper.make_node("Conv", ["image", "weight"], ["output"])], [tensor])


def external(model, location):
    """The same model with its weight said to lie in another file."""
    (tensor,) = model.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return model


def inside_branch(attribute):
    """A model whose hidden part is an attribute of a node inside a branch of an If."""
    inner = helper.make_node("Constant", [], ["inner"])
    inner.attribute.append(attribute)
    branch = helper.make_graph([inner], "branch", [], [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)])
    condition = numpy_helper.from_array(np.array(True), "condition")
    node = helper.make_node("If", ["condition"], ["output"], then_branch=branch, else_branch=branch)
    return graph_of([node], [condition])


def hidden_external():
    tensor = TensorProto(name="x", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret")
    return inside_branch(helper.make_attribute("value", tensor))


def hidden_sparse():
    values = TensorProto(name="v", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    values.external_data.add(key="location", value="/etc/hostname")
    indices = numpy_helper.from_array(np.zeros(1, dtype=np.int64), "i")
    sparse = onnx.SparseTensorProto(values=values, indices=indices, dims=[4])
    return inside_branch(helper.make_attribute("sparse_value", sparse))


def hidden_operator():
    model = inside_branch(helper.make_attribute("value", numpy_helper.from_array(np.zeros(1, dtype=np.float32), "x")))
    model.graph.node[0].attribute[0].g.node[0].domain = "com.evil"
    return model


def own_domain():
    model = pointwise()
    model.graph.node[0].domain = "com.evil"
    model.opset_import.append(helper.make_opsetid("com.evil", 1))
    return model


def own_function():
    function = helper.make_function(
        "", "Mine", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], [helper.make_opsetid("", 20)]
    )
    model = pointwise()
    model.functions.append(function)
    return model


def many_nodes():
    model = pointwise()
    model.graph.node.extend([onnx.NodeProto(op_type="Relu", input=["image"])] * room.MOST_NODES)
    return model


UNSAFE = {
    "weights in a file above": lambda: external(pointwise(), "../secret"),
    "weights at an absolute path": lambda: external(pointwise(), "/etc/hostname"),
    "weights in a file beside": lambda: external(pointwise(), "weights.bin"),
    "external data in a branch": hidden_external,
    "external sparse data in a branch": hidden_sparse,
    "operators of another domain": own_domain,
    "operators of another domain in a branch": hidden_operator,
    "functions of its own": own_function,
    "too many nodes": many_nodes,
}


@pytest.mark.parametrize("what", UNSAFE)
def test_a_file_that_could_reach_outside_itself_is_unsafe(what):
    with pytest.raises(UnsafeArtefact) as caught:
        check_onnx(UNSAFE[what]().SerializeToString())
    assert caught.value.exit_code == 7
    assert "secret" not in caught.value.sentence
    assert "evil" not in caught.value.sentence


def wrong_length():
    model = pointwise()
    model.graph.initializer[0].raw_data = b"\0" * 8
    return model


def promised_gigabytes():
    model = pointwise()
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend([1 << 20, 1 << 20])
    return model


def unknown_type():
    model = pointwise()
    model.graph.initializer[0].data_type = 99
    return model


def half(value):
    model = pointwise()
    model.graph.initializer.append(numpy_helper.from_array(np.array([value], dtype=np.float16), "more"))
    return model


BROKEN = {
    "not a number among the weights": (lambda: pointwise(np.full((3, 1, 1, 1, 1), np.nan, np.float32)), "WEIGHTS_NOT_FINITE"),
    "infinity among half precision weights": (lambda: half(np.inf), "WEIGHTS_NOT_FINITE"),
    "weights shorter than said": (wrong_length, "ONNX_PARSE"),
    "weights of terabytes that are not there": (promised_gigabytes, "ONNX_PARSE"),
    "weights of an unknown type": (unknown_type, "ONNX_PARSE"),
    "an operator that is none": (lambda: graph_of([helper.make_node("Nonsense", ["image"], ["output"])], []), "ONNX_PARSE"),
    "an input from nowhere": (lambda: graph_of([helper.make_node("Relu", ["nothing"], ["output"])], []), "ONNX_PARSE"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_file_is_rejected_by_name(what):
    make, code = BROKEN[what]
    with pytest.raises(InputRejected) as caught:
        check_onnx(make().SerializeToString())
    assert (caught.value.exit_code, caught.value.code) == (3, code)


@pytest.mark.parametrize("data", [b"", b"not onnx at all", b"\x80\x04\x95", b"\x00" * 64, b"PK\x03\x04"])
def test_bytes_of_something_else_are_rejected(data):
    with pytest.raises(InputRejected):
        check_onnx(data)


def test_a_sound_file_passes():
    check_onnx(pointwise().SerializeToString())


def test_a_file_cut_at_any_byte_is_refused_or_sound():
    data = pointwise().SerializeToString()
    passed = 0
    for length in range(len(data)):
        try:
            check_onnx(data[:length])
        except (InputRejected, UnsafeArtefact):
            continue
        passed += 1
    assert passed == 0


@given(at=st.integers(0, 10_000), value=st.integers(0, 255))
@settings(max_examples=300)
def test_any_changed_byte_leads_to_a_named_refusal_or_a_sound_file(at, value):
    data = bytearray(pointwise().SerializeToString())
    data[at % len(data)] = value
    with suppress(InputRejected, UnsafeArtefact):
        check_onnx(bytes(data))


@pytest.fixture
def shelved(workspace, unet_onnx):
    """Store ONNX bytes as a model like the tiny UNet."""

    def put(data):
        with workspace.staging() as staged:
            (staged / "model.onnx").write_bytes(data)
            return put_model(workspace, staged, unet_onnx.spec)

    return put


def test_a_sound_file_computes_what_it_says(shelved, windows):
    output = OnnxRuntimeEngine(threads=1).forward(shelved(pointwise().SerializeToString()))(windows)
    np.testing.assert_allclose(output, np.concatenate([windows, -2 * windows, windows / 2], axis=1), rtol=1e-6)


def test_a_neighbouring_file_is_not_read_even_if_it_is_there(shelved, workspace):
    hostile = external(pointwise(), "model.json")
    with pytest.raises(UnsafeArtefact, match="another file"):
        OnnxRuntimeEngine().forward(shelved(hostile.SerializeToString()))


def test_a_file_with_other_ends_is_rejected(shelved):
    relu = graph_of([helper.make_node("Relu", ["image"], ["output"])], [], output_shape=SHAPE)
    with pytest.raises(InputRejected, match="output is not") as caught:
        OnnxRuntimeEngine().forward(shelved(relu.SerializeToString()))
    assert caught.value.code == "ONNX_SHAPE"


def test_a_graph_that_onnx_runtime_cannot_run_is_rejected(shelved, windows):
    mismatched = pointwise(np.ones((3, 2, 1, 1, 1), dtype=np.float32))
    with pytest.raises(InputRejected, match="cannot run") as caught:
        OnnxRuntimeEngine().forward(shelved(mismatched.SerializeToString()))(windows)
    assert caught.value.code == "ONNX_PARSE"


def test_a_file_above_the_limit_is_not_read(shelved, monkeypatch):
    model = shelved(pointwise().SerializeToString())
    monkeypatch.setattr(room, "MOST_BYTES", model.weights_bytes - 1)
    with pytest.raises(UnsafeArtefact, match="at most") as caught:
        OnnxRuntimeEngine().forward(model)
    assert caught.value.code == "ONNX_SIZE"


@pytest.mark.parametrize(("limit", "most"), [("1", 1), ("0", None), ("nonsense", None), ("", None)])
def test_threads_follow_the_same_limit_as_torch(monkeypatch, limit, most):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    free = available_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    assert available_threads() == (most or free)
