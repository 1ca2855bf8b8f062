"""Masks as DICOM Segmentation objects (PS3.3 A.51), in the grid in which the scanner wrote the series.

A segmentation belongs beside its source: it names the source's slices, and carries the patient's identity exactly as the source
does (received identity for a received series, a pseudonym for a de-identified one). A volume that was brought to another grid,
such as a tilted series, goes back to the scanner's own by nearest neighbours. UIDs and dates follow from source and content, so
the same mask of the same series gives the same bytes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from bedside.core.digest import digest_bytes, digest_json
from bedside.core.errors import InputRejected, UsageError
from bedside.core.files import write_atomic
from bedside.core.labels import Term, label_map_words
from bedside.core.volume import Affine, Frame
from bedside.formats.dicom_elements import Elements, walk
from bedside.formats.dicom_write import uid_of
from bedside.formats.found import Found
from bedside.formats.gate import LIMITS, Limits, guarded, receive
from bedside.formats.seg_read import SegPlane, planes_of

Mask = NDArray[np.generic]
Kind = Literal["BINARY", "LABELMAP"]

ANATOMY = Term(value="91723000", meaning="Anatomical Structure")
"""The category of every segment, and the type of one whose structure has no term (PS3.16 CID 7150)."""
_LPS_FROM_RAS = np.array([-1.0, -1.0, 1.0])
_TIE = 1e-6
_GOLDEN_DEGREES = 137.507764
_PLACE_TOLERANCE = 0.05
"""How far a slice of the source may lie from its place in the frame, in voxels."""
_CORNER_TOLERANCE = 0.25
"""How far a corner of a segmentation may lie from that of its slice, in voxels: rounded cosines add up along 512 pixels."""
_TYPE_2 = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
"""Elements that every image has, empty if need be, and that a series without them gets."""
_ELEMENTS_PER_FRAME = 64


@dataclass(frozen=True)
class SegMaker:
    """What made a mask.

    Attributes:
        model: digest of the model, or what else tells how it was made; also the series' device serial number, cut to 64 letters.
        study: name of the study.
        version: of the software.
        labels: digest of the label map, written into the description of every segment; its beginning into that of the content,
            which has room for 64 letters.
    """

    model: str
    study: str
    version: str
    labels: str = ""


NO_TERMS: Mapping[str, Term] = MappingProxyType({})


def write_seg(
    path: Path,
    mask: Mask,
    found: Found,
    *,
    structures: Mapping[int, str],
    terms: Mapping[str, Term] = NO_TERMS,
    maker: SegMaker,
    kind: Kind = "BINARY",
) -> str:
    """Write a mask as one DICOM Segmentation.

    Args:
        path: of the file.
        mask: (I, J, K) training ids on the grid of `found.volume`.
        found: the series, as it was read.
        structures: name by training id; each becomes a segment, present or not.
        terms: code by structure name; a structure without one is an `ANATOMY`, with its name as label.
        maker: what made the mask.
        kind: "BINARY" (a plane of bits per segment and slice, read everywhere) or "LABELMAP" (a number per voxel; smaller).

    Returns:
        The SOPInstanceUID, which follows from the source and the content.

    Raises:
        UsageError: the mask is empty (SEG_EMPTY), does not have the volume's shape or holds other ids (SEG_MASK), or the volume
            is no DICOM series (SEG_SOURCE).
        InputRejected: the source's files do not lie where its grid says (SEG_FRAME), or what the gate refuses.
        ResourceError: the disk is full.
    """
    _check(mask, found, structures)
    frame = found.frame or Frame(found.volume.affine, _spatial(found))
    own = into_frame(mask, found.volume.affine, frame)
    if not own.any():
        raise UsageError("The mask holds no structure inside the series' slices; there is nothing to write.", code="SEG_EMPTY")
    sources, places = _sources(found, frame)
    numbers = {number: at for at, number in enumerate(sorted(structures), start=1)}
    planes = _planes(own, numbers, places)
    said = {"structures": sorted(structures.items()), "terms": {name: terms[name].model_dump() for name in terms}}
    content = digest_json({"planes": digest_bytes(planes.tobytes()), "maker": asdict(maker), **said})
    uid = uid_of("seg", found.source, content, kind)
    segments = [_segment(numbers[number], structures[number], terms, maker) for number in sorted(structures)]
    with guarded("SEG_SOURCE", "The series' headers do not hold what a segmentation of it needs; fetch the series again."):
        made = _made(sources, planes, places, segments, (uid, kind, maker, frame))
        stream = BytesIO()
        made.save_as(stream, enforce_file_format=True)
    write_atomic(path, stream.getvalue(), doing="writing a segmentation")
    return uid


def read_seg(path: Path, found: Found, *, limits: Limits = LIMITS) -> Mask:
    """Read a segmentation of a series as a mask on the grid of `found.volume`, (I, J, K), segment numbers as ids.

    Where segments overlap the one with the larger number is kept.

    Raises:
        InputRejected: the file is no segmentation (SEG_STRUCTURE) or lies on another grid (SEG_FRAME), or what the gate refuses.
    """
    data = receive(path, limits=limits)
    frame = found.frame or Frame(found.volume.affine, _spatial(found))
    more = _ELEMENTS_PER_FRAME * 65536  # as many frames as there may be
    wider = {"max_elements": limits.max_elements + more, "max_items": limits.max_items + more}
    walk(data, Elements(data), limits=limits.model_copy(update=wider))
    own = np.zeros(frame.shape[::-1], dtype=np.uint16)
    inverse = np.asarray(np.linalg.inv(frame.affine), dtype=np.float64)
    with guarded("SEG_STRUCTURE", "The file is no DICOM segmentation that can be read; write it again."):
        for plane in planes_of(dcmread(BytesIO(data))):
            _put(own, plane, inverse)
    small = (own.astype(np.uint8) if own.max() < 256 else own).T
    return from_frame(small, found.volume.affine, frame, _spatial(found))


def into_frame(mask: Mask, affine: Affine, frame: Frame) -> Mask:
    """Bring a mask (I, J, K) to a frame by nearest neighbours; 0 where the mask does not reach."""
    return _nearest(mask, np.linalg.inv(affine) @ frame.affine, frame.shape, upwards=True)


def from_frame(mask: Mask, affine: Affine, frame: Frame, shape: tuple[int, int, int]) -> Mask:
    """Bring a mask from a frame back to a grid; undoes `into_frame` where planes only slid along each other, ties included."""
    return _nearest(mask, np.linalg.inv(frame.affine) @ affine, shape, upwards=False)


def _nearest(mask: Mask, there: Affine, shape: tuple[int, int, int], *, upwards: bool) -> Mask:
    """Each voxel takes the label at the nearest index; a tie goes up one way and down the other, so that both agree."""
    if np.allclose(there, np.eye(4), atol=_TIE) and mask.shape == shape:
        return np.asarray(mask)
    made = np.zeros(shape, dtype=mask.dtype)
    i, j = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    for k in range(shape[2]):
        at = [there[axis, 0] * i + there[axis, 1] * j + there[axis, 2] * k + there[axis, 3] for axis in range(3)]
        index = [np.floor(x + 0.5 + _TIE) if upwards else np.ceil(x - 0.5 - _TIE) for x in at]
        within = np.logical_and.reduce([(x >= 0) & (x < size) for x, size in zip(index, mask.shape, strict=True)])
        made[:, :, k][within] = mask[tuple(x[within].astype(np.intp) for x in index)]
    return made


def _check(mask: Mask, found: Found, structures: Mapping[int, str]) -> None:
    if not found.files or not found.geometry.startswith("dicom"):
        raise UsageError("A DICOM segmentation needs a DICOM series as its source.", code="SEG_SOURCE")
    if mask.shape != _spatial(found) or mask.dtype.kind not in "biu":
        raise UsageError("The mask must have the volume's shape and hold whole numbers.", code="SEG_MASK")
    if not structures or min(structures) < 1 or not set(np.unique(mask).tolist()) <= {0, *structures}:
        raise UsageError("The mask holds ids that no structure has; give each id above 0 a name.", code="SEG_MASK")


def _spatial(found: Found) -> tuple[int, int, int]:
    _, i, j, k = found.volume.shape
    return i, j, k


def _sources(found: Found, frame: Frame) -> tuple[list[Dataset], list[tuple[int, int]]]:
    """Headers of the source's files, and for each of their frames in the volume (its number in the file, its slice).

    Raises:
        InputRejected: SEG_FRAME, when a slice of the frame has no source.
    """
    inverse = np.asarray(np.linalg.inv(frame.affine), dtype=np.float64)
    headers: list[Dataset] = []
    places: list[tuple[int, int]] = []
    taken: set[int] = set()
    for path in dict.fromkeys(found.files):
        data = receive(path)
        walk(data, Elements(data))
        with guarded("SEG_SOURCE", "The header of a slice cannot be read again; fetch the series again."):
            header = dcmread(BytesIO(data), stop_before_pixels=True)
            positions = _positions(header)
        _complete(header, found.source)
        _complete_geometry(header, frame)
        slices = [_slice_of(position, inverse, frame.shape[2]) for position in positions]
        new = [(number, k) for number, k in enumerate(slices) if k is not None and k not in taken]
        if new:
            headers.append(header)
            places.extend(new)
            taken.update(k for _, k in new)
    if taken != set(range(frame.shape[2])):
        raise InputRejected("The series' files do not lie where its grid says; read the series again.", code="SEG_FRAME")
    return headers, places


def _complete(header: Dataset, source: str) -> None:
    """Add what every image has and de-identified ones may lack: empty elements, class and name from the file's own meta.

    Where study, series or frame of reference have no UID, one that follows from the received bytes says that these slices belong
    together, and no more.
    """
    for name in _TYPE_2:
        if name not in header:
            setattr(header, name, "")
    for name in ("SOPClassUID", "SOPInstanceUID"):
        if not header.get(name):
            setattr(header, name, header.file_meta[f"MediaStorage{name}"].value)
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        if not header.get(name):
            setattr(header, name, uid_of(name, source))


def _complete_geometry(header: Dataset, frame: Frame) -> None:
    """Add, for the library, what the reader has already proved of spacing and direction and the header says elsewhere or not."""
    if "PerFrameFunctionalGroupsSequence" not in header:
        if not header.get("SliceThickness"):
            header.SliceThickness = _measures(header, frame)[0].SliceThickness
        return
    if not header.get("SharedFunctionalGroupsSequence"):
        header.SharedFunctionalGroupsSequence = [Dataset()]
    shared = header.SharedFunctionalGroupsSequence[0]
    if not shared.get("PixelMeasuresSequence"):
        shared.PixelMeasuresSequence = _measures(header, frame)
    if not shared.get("PlaneOrientationSequence"):
        cosines = frame.affine[:3, :2] / np.linalg.norm(frame.affine[:3, :2], axis=0)
        lps = (cosines * _LPS_FROM_RAS[:, None]).T.ravel()
        shared.PlaneOrientationSequence = highdicom.PlaneOrientationSequence("PATIENT", lps.tolist())


def _positions(header: Dataset) -> list[Sequence[float]]:
    """ImagePositionPatient of every frame."""
    if "PerFrameFunctionalGroupsSequence" not in header:
        return [header.ImagePositionPatient]
    return [item.PlanePositionSequence[0].ImagePositionPatient for item in header.PerFrameFunctionalGroupsSequence]


def _slice_of(position_lps: Sequence[float], inverse: Affine, count: int) -> int | None:
    """The slice that begins at a position, or None."""
    voxel = inverse @ np.append(np.asarray(position_lps, dtype=np.float64) * _LPS_FROM_RAS, 1.0)
    k = round(float(voxel[2]))
    return k if 0 <= k < count and np.abs(voxel[:3] - [0, 0, k]).max() <= _PLACE_TOLERANCE else None


def _planes(own: Mask, numbers: Mapping[int, int], places: Sequence[tuple[int, int]]) -> NDArray[np.uint16]:
    """Segment numbers in the order of the source's frames, (frames, rows, columns)."""
    table = np.zeros(max(numbers) + 1, dtype=np.uint16)
    for number, segment in numbers.items():
        table[number] = segment
    return np.ascontiguousarray(np.stack([table[own[:, :, k]].T for _, k in places]))


def _segment(number: int, name: str, terms: Mapping[str, Term], maker: SegMaker) -> highdicom.seg.SegmentDescription:
    term = terms.get(name, ANATOMY)
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=maker.study,
        family=highdicom.sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
        version=maker.model[:64],
        source="bedside",
    )
    segment = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        segmented_property_category=highdicom.sr.CodedConcept(ANATOMY.value, ANATOMY.scheme, ANATOMY.meaning),
        segmented_property_type=highdicom.sr.CodedConcept(term.value, term.scheme, term.meaning),
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        display_color=_colour(number),
    )
    if maker.labels:
        segment.SegmentDescription = label_map_words(maker.labels)
    return segment


def _colour(number: int) -> highdicom.color.CIELabColor:
    """The same for the same segment in every file; hues turn by the golden angle, so that neighbouring numbers look unlike."""
    hue = math.radians(_GOLDEN_DEGREES * number)
    return highdicom.color.CIELabColor(70.0, 40.0 * math.cos(hue), 40.0 * math.sin(hue))


def _made(
    sources: Sequence[Dataset],
    planes: NDArray[np.uint16],
    places: Sequence[tuple[int, int]],
    segments: Sequence[highdicom.seg.SegmentDescription],
    how: tuple[str, Kind, SegMaker, Frame],
) -> highdicom.seg.Segmentation:
    """The object, with dates and UIDs that follow from the source and the content."""
    uid, kind, maker, frame = how
    first = sources[0]
    date, time = first.StudyDate or "19000101", first.StudyTime or "000000"
    made = highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=planes,
        segmentation_type=kind,
        segment_descriptions=segments,
        series_instance_uid=uid_of("seg series", uid),
        series_number=9000,
        sop_instance_uid=uid,
        instance_number=1,
        manufacturer="bedside",
        manufacturer_model_name=maker.study[:64],
        software_versions=maker.version,
        device_serial_number=maker.model[:64],
        content_label="SEGMENTATION",
        content_description=label_map_words(maker.labels[:12]) if maker.labels else None,
        plane_positions=_plane_positions(sources, places, frame),
        pixel_measures=_measures(first, frame),
        specific_character_set="ISO_IR 192",
        content_date=date,
        content_time=time,
    )
    made.InstanceCreationDate, made.InstanceCreationTime, made.ContentCreatorName = date, time, ""
    for item in made.get("ContributingEquipmentSequence", []):
        item.ContributionDateTime = f"{date}{time}"
    organization = uid_of("seg dimensions", uid)
    for item in (*made.DimensionOrganizationSequence, *made.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization
    return made


def _plane_positions(
    sources: Sequence[Dataset], places: Sequence[tuple[int, int]], frame: Frame
) -> list[highdicom.PlanePositionSequence] | None:
    """Positions of the planes; None where every frame of the source is one, in order, so that its own words are copied."""
    frames = int(sources[0].NumberOfFrames) if "NumberOfFrames" in sources[0] else len(sources)
    if len(places) == frames:
        return None
    lps = [(frame.affine @ [0, 0, k, 1])[:3] * _LPS_FROM_RAS for _, k in places]
    return [highdicom.PlanePositionSequence("PATIENT", position.tolist()) for position in lps]


def _measures(source: Dataset, frame: Frame) -> highdicom.PixelMeasuresSequence:
    """Spacing in the plane, and along the normal between planes."""
    column, row, between = frame.affine[:3, :3].T
    normal = np.cross(column, row) / (np.linalg.norm(column) * np.linalg.norm(row))
    apart = abs(float(normal @ between))
    thickness = source.get("SliceThickness")
    return highdicom.PixelMeasuresSequence(
        pixel_spacing=[float(np.linalg.norm(row)), float(np.linalg.norm(column))],
        slice_thickness=float(thickness) if thickness else apart,
        spacing_between_slices=apart,
    )


def _put(own: NDArray[np.uint16], plane: SegPlane, inverse: Affine) -> None:
    """Write one plane of a segmentation into the mask of its frame, here (K, rows, columns)."""
    k = _slice_of(plane.corners_mm[0].tolist(), inverse, len(own))
    if k is None or plane.numbers.shape != own.shape[1:] or not _lies_on(plane, inverse, k):
        raise InputRejected(
            "The segmentation lies on another grid than the series; give the series it was made of.", code="SEG_FRAME"
        )
    target = own[k]
    np.maximum(target, plane.numbers * np.uint16(plane.segment or 1), out=target)


def _lies_on(plane: SegPlane, inverse: Affine, k: int) -> bool:
    """Whether a plane's rows, columns and spacing are those of slice k, by where its corners lie."""
    rows, columns = plane.numbers.shape
    voxels = inverse[:3, :3] @ (plane.corners_mm * _LPS_FROM_RAS).T + inverse[:3, 3:]
    wanted = np.array([[0, 0, k], [columns - 1, 0, k], [0, rows - 1, k]]).T
    return bool(np.abs(voxels - wanted).max() <= _CORNER_TOLERANCE)
