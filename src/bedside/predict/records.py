"""What is asked of a prediction and what comes of it. Nothing here is taken from a patient's header."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from bedside.core.record import Record
from bedside.data.surface import SurfaceSettings
from bedside.data.surface_check import SurfaceCheck

MeshFormat = Literal["stl", "ply", "obj"]

NOTES = {
    "NOTHING_FOUND": "The model found none of its structures, so there is no surface and no segmentation.",
    "NO_SERIES": "The source is no DICOM series, so no DICOM segmentation of it can be written.",
    "RECOGNIZABLE_FACE": "The scan may show a face: its surfaces identify the patient, so treat them as the scan itself.",
    "OWN_FRAME": "The volume was brought to another grid for the model; mask and surfaces lie in patient space, and the DICOM"
    " segmentation in the scanner's own slices.",
    "BODY_PART_UNKNOWN": "The header does not say which part of the body it shows, and the model was made for some only.",
    "PLANE_UNKNOWN": "The header does not say in which plane the slices lie, and the model was made for one.",
}
"""What the codes in `CaseResult.notes` mean."""


class PredictSettings(Record):
    """What is made of every series.

    Attributes:
        seg: a DICOM segmentation beside the source's slices.
        seg_kind: its form.
        meshes: file formats of the surfaces; none: surfaces are neither made nor measured.
        surface: smoothing, budget, islands.
        replace: put a result in the place of one that another model gave.
        keep_reformats: predict series of nothing but reformats and projections too, as `source.keep_reformats`.
    """

    seg: bool = True
    seg_kind: Literal["BINARY", "LABELMAP"] = "BINARY"
    meshes: tuple[MeshFormat, ...] = ("stl",)
    surface: SurfaceSettings = SurfaceSettings()
    replace: bool = False
    keep_reformats: bool = False


class CaseResult(Record):
    """`result.json` of one series.

    Attributes:
        case: name of its folder, the beginning of the source's digest.
        source: digest of the received bytes.
        model: digest of the model; `label_map`: of the numbers' meaning.
        files: SHA-256 of every other file in the folder but the report, which shows them.
        voxels: found, by structure; `mask_ml`: their volume.
        surfaces: what was measured of every surface.
        seg_uid: SOPInstanceUID of the segmentation, "" when there is none.
        frame: "LPS mm", the axes and unit of every mesh.
        notes: codes, see `NOTES`, and those of the reader.
        seconds: stage to wall-clock seconds.
    """

    case: str
    source: str
    model: str
    label_map: str
    files: dict[str, str]
    voxels: dict[str, int]
    mask_ml: dict[str, float]
    surfaces: tuple[SurfaceCheck, ...]
    seg_uid: str
    frame: Literal["LPS mm"] = "LPS mm"
    notes: tuple[str, ...]
    seconds: dict[str, float]


class RefusedSeries(Record):
    """A series that was not predicted: the rule's name, its sentence, and how many files it has."""

    code: str
    sentence: str
    files: int


class PredictResult(Record):
    """What one call of `predict` did. Received files = in `cases` + in `refused` + duplicates.

    Attributes:
        received: number of files.
        cases: results.
        refused: series and files that were not predicted.
        duplicates: files that repeat another one.
        predicted_files: files that the cases were made of.
    """

    received: Annotated[int, Field(ge=0)]
    predicted_files: int
    cases: tuple[CaseResult, ...]
    refused: tuple[RefusedSeries, ...]
    duplicates: int


class PredictPlan(Record):
    """What `predict` would do, judged by headers and the contract's modality alone.

    Attributes:
        model: digest.
        series: that would be predicted.
        refused: code to number of files.
        outputs: names of the files that each case would get, structures that are not found left out.
        folder: where they would lie.
    """

    model: str
    series: int
    refused: dict[str, int]
    outputs: tuple[str, ...]
    folder: Path
