"""Phantoms as they would arrive from a hospital: DICOM series with NIfTI masks beside them."""

from pathlib import Path

from bedside.core.errors import disk_errors
from bedside.core.progress import SILENT, Progress
from bedside.data.phantom import cohort
from bedside.formats.dicom_write import SeriesIdentity, write_series
from bedside.formats.nifti import write_nifti


def write_phantom_cohort(folder: str | Path, *, patients: int, seed: int, progress: Progress = SILENT) -> Path:
    """Write `images/<id>/*.dcm` and `labels/<id>.nii.gz` for a cohort of phantoms; the same call writes the same bytes.

    Args:
        folder: made when absent.
        patients: how many; each has one series.
        seed: of the cohort.
        progress: advances by one per patient.

    Returns:
        The folder, ready to be ingested.

    Raises:
        UsageError: fewer than one patient is asked for.
        ResourceError: the disk is full.
    """
    root = Path(folder)
    with disk_errors("writing the phantom cohort"):
        (root / "images").mkdir(parents=True, exist_ok=True)
        (root / "labels").mkdir(exist_ok=True)
    progress.start("writing phantoms", patients)
    for number, phantom in enumerate(cohort(patients, seed=seed), start=1):
        identity = SeriesIdentity.of(phantom.name, manufacturer=phantom.scanner.manufacturer, model=phantom.scanner.model)
        write_series(root / "images" / phantom.name, phantom.image, identity=identity)
        write_nifti(root / "labels" / f"{phantom.name}.nii.gz", phantom.label.array[0], phantom.label.affine)
        progress.advance(number)
    return root
