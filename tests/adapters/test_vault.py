"""A sealed file gives its bytes back to the key, and to nothing else."""

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.adapters.vault import CHUNK_BYTES, KEY_VARIABLE, MAGIC, Vault
from bedside.core.errors import IntegrityError, UnsafeArtefact, UsageError

VAULT = Vault.from_environment({KEY_VARIABLE: "a" * 32})
OTHER = Vault.from_environment({KEY_VARIABLE: "b" * 32})


def sealed(data, vault=VAULT):
    return b"".join(vault.seal([data], content=hashlib.sha256(data).hexdigest()))


@given(st.binary(max_size=2000), st.lists(st.integers(0, 2000), max_size=4))
def test_bytes_come_back_however_they_were_handed_over(data, cuts):
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in pairwise(places)]
    assert b"".join(VAULT.seal(pieces, content=hashlib.sha256(data).hexdigest())) == sealed(data)
    assert VAULT.open(sealed(data)) == data


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 2 * CHUNK_BYTES + 7])
def test_every_length_around_a_chunk_comes_back(size):
    data = hashlib.shake_256(b"seed").digest(size)
    assert VAULT.open(sealed(data)) == data


@settings(max_examples=60)
@given(st.data())
def test_a_flipped_bit_anywhere_is_found(data):
    whole = bytearray(sealed(b"voxels" * 50))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises((IntegrityError, UnsafeArtefact)):
        VAULT.open(bytes(whole))


@pytest.mark.parametrize("keep", [0, 8, 31, 48, CHUNK_BYTES, CHUNK_BYTES + 48, -1])
def test_a_cut_anywhere_is_found(keep):
    whole = sealed(b"x" * (CHUNK_BYTES + 500))
    with pytest.raises(IntegrityError):
        VAULT.open(whole[:keep])


def test_chunks_that_change_places_or_are_left_out_are_found():
    whole, step = sealed(bytes(3 * CHUNK_BYTES)), CHUNK_BYTES + 16
    head, first, second, third = whole[:32], whole[32 : 32 + step], whole[32 + step : 32 + 2 * step], whole[32 + 2 * step :]
    for other in (head + second + first + third, head + first + third, head + first + second, head + third):
        with pytest.raises(IntegrityError):
            VAULT.open(other)


def test_another_key_is_named_and_opens_nothing():
    with pytest.raises(UnsafeArtefact) as caught:
        OTHER.open(sealed(b"voxels"))
    assert caught.value.code == "WRONG_STORE_KEY"


def test_equal_content_gives_equal_bytes_under_one_key_and_others_under_another():
    assert sealed(b"voxels") == sealed(b"voxels")
    assert sealed(b"voxels") != sealed(b"voxels", OTHER)
    assert sealed(b"voxels")[32:] != sealed(b"voxelt")[32:]


def test_nothing_of_the_content_is_in_the_sealed_bytes():
    text = b"DOE^JANE 1970-01-01"
    assert text not in sealed(text * 100)
    assert sealed(text).startswith(MAGIC)


@pytest.mark.parametrize("secret", [None, "", "too short", " " * 40])
def test_a_missing_or_short_key_is_refused_before_anything_is_written(secret):
    with pytest.raises(UsageError) as caught:
        Vault.from_environment({} if secret is None else {KEY_VARIABLE: secret})
    assert caught.value.code == "NO_STORE_KEY"


def test_the_key_is_in_no_text_about_the_vault():
    assert repr(VAULT) == "Vault()"
