"""Closed surfaces as files: binary STL, binary PLY and OBJ, in patient millimetres, LPS.

Each file says "LPS mm" where its format has room for words, and holds the structure's name and nothing of a patient. The same
surface gives the same bytes. LPS is RAS turned half round about the third axis, so outward normals stay outward.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from bedside.core.errors import InputRejected, UsageError
from bedside.core.files import write_atomic
from bedside.formats.gate import LIMITS, Limits, receive

_LPS_FROM_RAS = np.array([-1, -1, 1], dtype=np.float32)
_FARTHEST_MM = 1e9
_STL_HEADER_BYTES = 80
_STL_FACE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_PLY_FACE = np.dtype([("count", "u1"), ("corners", "<i4", 3)])

Points = NDArray[np.float32]
Faces = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Mesh:
    """A surface of a file.

    Attributes:
        points_mm: (V, 3) float32, RAS+ mm.
        faces: (F, 3), counter-clockwise from outside.
        words: what the file says of itself.
    """

    points_mm: Points
    faces: Faces
    words: str = ""


def write_mesh(path: Path, points_mm: Points, faces: Faces, *, name: str) -> None:
    """Write a surface; the suffix of the path (.stl, .ply or .obj) chooses the format.

    Args:
        path: of the file; it is replaced as a whole.
        points_mm: (V, 3), RAS+ mm.
        faces: (F, 3), counter-clockwise from outside.
        name: of the structure, at most 48 of its letters, digits, `_`, `-` and spaces are kept.

    Raises:
        UsageError: there is no writer for the suffix, or the faces name points that are not there.
        ResourceError: the disk is full.
    """
    encode = WRITERS.get(path.suffix.lower())
    if encode is None:
        raise UsageError(f"There is no mesh format of that suffix; use {', '.join(sorted(WRITERS))}.", code="MESH_FORMAT")
    if not len(faces) or faces.min() < 0 or faces.max() >= len(points_mm):
        raise UsageError("A mesh has faces, and each names points of the mesh.", code="MESH_FACES")
    clean = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "_- ") else "_" for letter in name)[:48]
    lps = np.ascontiguousarray(points_mm.astype(np.float32) * _LPS_FROM_RAS)
    write_atomic(path, encode(lps, np.asarray(faces), f"bedside, LPS mm, {clean}"), doing="writing a mesh")


def read_mesh(path: Path, *, limits: Limits = LIMITS) -> Mesh:
    """Read a mesh that `write_mesh` wrote. STL has no shared points: corners at one place become one.

    Raises:
        UsageError: there is no reader for the suffix.
        InputRejected: MESH_STRUCTURE, when the bytes are not a mesh of this kind, or what the gate refuses.
    """
    decode = _READERS.get(path.suffix.lower())
    if decode is None:
        raise UsageError(f"There is no mesh format of that suffix; use {', '.join(sorted(_READERS))}.", code="MESH_FORMAT")
    lps, faces, words = decode(receive(path, limits=limits))
    if not len(faces) or faces.min() < 0 or faces.max() >= len(lps) or not np.isfinite(lps).all():
        raise _broken("its faces and points do not fit together")
    return Mesh(lps * _LPS_FROM_RAS, faces, words)


def _stl(points: Points, faces: Faces, words: str) -> bytes:
    """Binary STL: header, count, then normal, three corners and two empty bytes per face. It must not begin with "solid"."""
    records = np.zeros(len(faces), dtype=_STL_FACE)
    corners = points[faces]
    records["corners"] = corners
    wide = corners.astype(np.float64)
    normals = np.cross(wide[:, 1] - wide[:, 0], wide[:, 2] - wide[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    records["normal"] = np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)
    return (
        words.encode("ascii").ljust(_STL_HEADER_BYTES)[:_STL_HEADER_BYTES] + np.uint32(len(faces)).tobytes() + records.tobytes()
    )


def _ply(points: Points, faces: Faces, words: str) -> bytes:
    head = (
        f"ply\nformat binary_little_endian 1.0\ncomment {words}\nelement vertex {len(points)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    records = np.zeros(len(faces), dtype=_PLY_FACE)
    records["count"] = 3
    records["corners"] = faces
    return head.encode("ascii") + points.astype("<f4").tobytes() + records.tobytes()


def _obj(points: Points, faces: Faces, words: str) -> bytes:
    """Wavefront OBJ; nine digits bring a float32 back exactly, and points count from 1."""
    lines = [f"# {words}"]
    lines.extend(f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in points.tolist())
    lines.extend(f"f {a} {b} {c}" for a, b, c in (faces + 1).tolist())
    return ("\n".join(lines) + "\n").encode("ascii")


def _broken(what: str) -> InputRejected:
    return InputRejected(f"The file is no mesh of its kind: {what}; write it again.", code="MESH_STRUCTURE")


def _from_stl(data: bytes) -> tuple[Points, Faces, str]:
    start = _STL_HEADER_BYTES + 4
    if len(data) < start:
        raise _broken("it is too short")
    count = int.from_bytes(data[_STL_HEADER_BYTES:start], "little")
    if len(data) != start + count * _STL_FACE.itemsize:
        raise _broken("its length does not fit its number of faces")
    corners = np.frombuffer(data, dtype=_STL_FACE, count=count, offset=start)["corners"].reshape(-1, 3)
    points, faces = np.unique(corners, axis=0, return_inverse=True)
    return points, faces.reshape(-1, 3).astype(np.int64), data[:_STL_HEADER_BYTES].decode("ascii", "replace").rstrip()


def _from_ply(data: bytes) -> tuple[Points, Faces, str]:
    end = data.find(b"end_header\n", 0, 4096)
    if end < 0:
        raise _broken("its header does not end")
    lines = data[:end].decode("ascii", "replace").split("\n")
    wanted = ["ply", "format binary_little_endian 1.0", "comment", "element vertex", "property float x", "property float y"]
    wanted += ["property float z", "element face", "property list uchar int vertex_indices", ""]
    if len(lines) != len(wanted) or any(not line.startswith(start) for line, start in zip(lines, wanted, strict=True)):
        raise _broken("its header is not one that bedside writes")
    counts = [lines[index].rpartition(" ")[2] for index in (3, 7)]
    if not all(count.isdecimal() and len(count) < 12 for count in counts):
        raise _broken("its header does not say how many points and faces there are")
    vertices, faces = (int(count) for count in counts)
    start = end + len(b"end_header\n")
    if len(data) != start + 12 * vertices + faces * _PLY_FACE.itemsize:
        raise _broken("its length does not fit its numbers of points and faces")
    points = np.frombuffer(data, dtype="<f4", count=3 * vertices, offset=start).reshape(-1, 3)
    records = np.frombuffer(data, dtype=_PLY_FACE, count=faces, offset=start + 12 * vertices)
    if (records["count"] != 3).any():
        raise _broken("a face is no triangle")
    return points, records["corners"].astype(np.int64), lines[2].removeprefix("comment ")


def _from_obj(data: bytes) -> tuple[Points, Faces, str]:
    words, points, faces = "", list[list[float]](), list[list[int]]()
    try:
        for line in data.decode("ascii").splitlines():
            kind, *values = line.split()
            if kind == "v" and len(values) == 3:
                points.append([float(value) for value in values])
            elif kind == "f" and len(values) == 3:
                faces.append([int(value) - 1 for value in values])
            elif kind == "#":
                words = line[2:]
            else:
                raise _broken("it holds a line that bedside does not write")
    except ValueError:
        raise _broken("a line holds no numbers") from None
    if max((abs(number) for point in points for number in point), default=0) > _FARTHEST_MM:
        raise _broken("a point lies nowhere")
    if any(not 0 <= number < len(points) for face in faces for number in face):
        raise _broken("its faces and points do not fit together")
    return np.array(points, dtype=np.float32).reshape(-1, 3), np.array(faces, dtype=np.int64).reshape(-1, 3), words


WRITERS: Mapping[str, Callable[[Points, Faces, str], bytes]] = MappingProxyType({".stl": _stl, ".ply": _ply, ".obj": _obj})
_READERS: Mapping[str, Callable[[bytes], tuple[Points, Faces, str]]] = MappingProxyType(
    {".stl": _from_stl, ".ply": _from_ply, ".obj": _from_obj}
)
