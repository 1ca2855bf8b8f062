"""Meshes say what they are in, come back as they went out, and a foreign program reads them the same way."""

from pathlib import Path

import numpy as np
import pytest
import trimesh

from bedside.core.errors import InputRejected, UsageError
from bedside.formats.mesh import read_mesh, write_mesh

SUFFIXES = ("stl", "ply", "obj")
POINTS = np.array([[10.0, 20.5, -3.25], [11.0, 20.5, -3.25], [10.0, 22.1, -3.25], [10.0, 20.5, 0.1]], dtype=np.float32)
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])


def corners(points: np.ndarray, faces: np.ndarray) -> list:
    return sorted(map(tuple, points[faces].reshape(-1, 9).tolist()))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_mesh_comes_back_exactly_and_says_its_axes_and_unit(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bone.{suffix}"
    write_mesh(path, POINTS, FACES, name="femur left")
    back = read_mesh(path)
    assert corners(back.points_mm, back.faces) == corners(POINTS, FACES)
    assert back.words == "bedside, LPS mm, femur left"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_another_program_sees_a_closed_body_in_lps_with_outward_normals(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bone.{suffix}"
    write_mesh(path, POINTS, FACES, name="femur")
    seen = trimesh.load_mesh(path)
    assert seen.is_watertight
    assert seen.volume == pytest.approx(1.0 * 1.6 * 3.35 / 6, rel=1e-5)
    np.testing.assert_allclose(seen.bounds, [[-11.0, -22.1, -3.25], [-10.0, -20.5, 0.1]], rtol=1e-6)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_mesh_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        write_mesh(tmp_path / f"{name}.{suffix}", POINTS, FACES, name="femur")
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_the_header_of_an_stl_is_80_bytes_and_does_not_begin_like_the_text_form(tmp_path: Path) -> None:
    write_mesh(tmp_path / "x.stl", POINTS, FACES, name="solid " * 30 + "ü\n")
    data = (tmp_path / "x.stl").read_bytes()
    assert not data.startswith(b"solid")
    assert data[80:84] == (4).to_bytes(4, "little")
    assert len(data) == 84 + 4 * 50
    assert data[:80].isascii()
    assert b"\n" not in data[:80]


def test_an_unknown_suffix_and_a_face_without_points_are_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as unknown:
        write_mesh(tmp_path / "x.vtk", POINTS, FACES, name="x")
    with pytest.raises(UsageError) as lost:
        write_mesh(tmp_path / "x.stl", POINTS, FACES + 1, name="x")
    with pytest.raises(UsageError) as unread:
        read_mesh(tmp_path / "x.vtk")
    assert (unknown.value.code, lost.value.code, unread.value.code) == ("MESH_FORMAT", "MESH_FACES", "MESH_FORMAT")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_cut_or_damaged_mesh_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bone.{suffix}"
    write_mesh(path, POINTS, FACES, name="femur")
    data = path.read_bytes()
    damaged = [data[:40], data[:-3] + b"\xff", data + b"\0", data.replace(b"\n", b"?", 3), b"\0" * len(data)]
    for number, bad in enumerate(damaged):
        if bad == data or (suffix == "stl" and len(bad) == len(data) and bad[:84] != b"\0" * 84):
            continue
        path.write_bytes(bad)
        with pytest.raises(InputRejected) as refused:
            read_mesh(path)
        assert refused.value.code == "MESH_STRUCTURE", number


@pytest.mark.parametrize(
    "line", ["v 1 2", "vn 1 2 3", "f 1 2 x", "v nan 0 0", "f 1 2 9", f"f 1 2 {10**30}", f"f 1 2 -{10**30}", "v 1e300 0 0"]
)
def test_a_line_that_bedside_does_not_write_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "bone.obj"
    write_mesh(path, POINTS, FACES, name="femur")
    path.write_bytes(path.read_bytes() + line.encode() + b"\n")
    with pytest.raises(InputRejected) as refused:
        read_mesh(path)
    assert refused.value.code == "MESH_STRUCTURE"
