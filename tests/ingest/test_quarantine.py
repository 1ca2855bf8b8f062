import hashlib
import os

import pytest

from bedside.core.digest import digest_json
from bedside.formats.found import Refused
from bedside.ingest.quarantine import Quarantine


@pytest.fixture
def quarantine(tmp_path):
    return Quarantine(tmp_path / "study" / "quarantine")


@pytest.fixture
def refused(tmp_path):
    path = tmp_path / "Doe^Jane.dcm"
    path.write_bytes(b"bytes")
    return Refused((path,), "DCM_TRUNCATED", "The file ends early.")


def test_bytes_are_kept_under_their_own_hash_with_the_reason_beside_them(quarantine, refused):
    refusal = quarantine.admit(refused)
    digest = hashlib.sha256(b"bytes").hexdigest()
    assert refusal.received == digest
    assert (quarantine.folder / digest).read_bytes() == b"bytes"
    assert quarantine.refusals() == (refusal,)
    assert b"Doe" not in quarantine.index.read_bytes()
    assert refused.files[0].exists()


def test_admitting_the_same_twice_changes_nothing(quarantine, refused):
    quarantine.admit(refused)
    before = {path.name: path.stat().st_size for path in quarantine.folder.iterdir()}
    quarantine.admit(refused)
    assert {path.name: path.stat().st_size for path in quarantine.folder.iterdir()} == before
    assert len(quarantine.refusals()) == 1


def test_a_second_reason_for_the_same_bytes_is_a_second_line(quarantine, refused):
    quarantine.admit(refused)
    quarantine.admit(Refused(refused.files, "MODALITY", "Another reason."))
    assert [line.code for line in quarantine.refusals()] == ["DCM_TRUNCATED", "MODALITY"]


def test_several_files_have_one_digest_that_their_order_does_not_change(quarantine, tmp_path):
    paths = []
    for number in range(3):
        paths.append(tmp_path / f"{number}.dcm")
        paths[-1].write_bytes(bytes([number]))
    one = quarantine.admit(Refused(tuple(paths), "SPACING", "Too coarse."))
    two = quarantine.admit(Refused(tuple(reversed(paths)), "SPACING", "Too coarse."))
    assert one.received == two.received == digest_json(sorted(one.files))


def test_a_line_that_a_crash_cut_short_is_replaced(quarantine, refused):
    quarantine.admit(refused)
    whole = quarantine.index.read_bytes()
    for cut in (1, len(whole) // 2, len(whole) - 1):
        quarantine.index.write_bytes(whole[:cut])
        assert quarantine.refusals() == ()
        quarantine.admit(refused)
        assert quarantine.index.read_bytes() == whole


def test_a_pipe_is_never_opened_and_a_link_never_followed(quarantine, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"not received")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(secret)
    for name in ("pipe", "link"):
        refusal = quarantine.admit(Refused((tmp_path / name,), "FILE_KIND", "Not a file."))
        assert refusal.files == (hashlib.sha256(b"").hexdigest(),)
    assert not (quarantine.folder / hashlib.sha256(b"not received").hexdigest()).exists()
