import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bedside.core.contract import Contract
from bedside.core.labels import UNANNOTATED
from bedside.core.volume import Volume
from bedside.ingest.arrays import content_name, store_array, stored_form
from bedside.ingest.convert import _label

DTYPES = st.sampled_from(["<i2", ">i2", "u1", "<f4", ">f4", "<f8", "<u2"])
ARRAYS = DTYPES.flatmap(
    lambda dtype: (
        arrays.arrays(dtype, arrays.array_shapes(min_dims=4, max_dims=4, max_side=4), elements={"allow_nan": False})
        if np.dtype(dtype).kind == "f"
        else arrays.arrays(dtype, arrays.array_shapes(min_dims=4, max_dims=4, max_side=4))
    )
)


@given(ARRAYS, st.permutations(range(4)))
def test_a_written_array_reads_back_and_is_named_by_its_bytes(tmp_path_factory, array, order):
    folder = tmp_path_factory.mktemp("arrays")
    form = stored_form(np.transpose(array, order))
    name = content_name(form)
    assert store_array(folder, form) == store_array(folder, form) == name
    assert [path.name for path in folder.iterdir()] == [name]
    assert hashlib.sha256((folder / name).read_bytes()).hexdigest() + ".npy" == name
    again = np.load(folder / name, mmap_mode="r", allow_pickle=False)
    assert np.array_equal(again, np.transpose(array, order))


def test_byte_order_and_memory_order_do_not_change_the_name():
    array = np.arange(24, dtype="<i2").reshape(1, 2, 3, 4)
    names = {
        content_name(stored_form(form))
        for form in (array, array.astype(">i2"), np.asfortranarray(array), array[..., ::-1][..., ::-1])
    }
    assert len(names) == 1
    assert content_name(stored_form(array.astype("<i4"))) not in names


@given(ARRAYS)
def test_a_stack_of_slices_is_stored_without_a_copy_and_reads_back_in_the_same_order(tmp_path_factory, array):
    stack = np.asfortranarray(array.astype(array.dtype.newbyteorder("<")))
    assert np.shares_memory(stored_form(stack), stack) or not stack.size
    folder = tmp_path_factory.mktemp("arrays")
    again = np.load(folder / store_array(folder, stack), allow_pickle=False)
    assert again.flags.f_contiguous
    assert np.array_equal(again, stack)


def test_a_voxel_that_nobody_annotated_keeps_a_training_id_of_its_own():
    contract = Contract(modality="MR", spacing_mm=(0.5, 2), labels={"background": 3, "femur": 1}, unannotated=900)
    mask = Volume.of(np.array([3, 1, 900, 3], np.uint16).reshape(4, 1, 1), np.eye(4))
    ids, _ = _label(mask, Volume.of(np.zeros((4, 1, 1), np.float32), np.eye(4)), contract)
    assert ids.ravel().tolist() == [0, 1, UNANNOTATED, 0]
