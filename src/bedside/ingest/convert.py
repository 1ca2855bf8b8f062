"""One image with its mask, decoded, checked and written in stored form; the part of ingest that runs in workers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bedside.core.contract import CORNER_TOLERANCE_MM, Contract, snap_note
from bedside.core.dataset import FrameRecord, VolumeRecord
from bedside.core.errors import InputRejected, IntegrityError
from bedside.core.labels import UNANNOTATED
from bedside.core.volume import Affine, Array, Frame, Reorientation, Volume, farthest_corner_mm
from bedside.formats.found import Found, Refused
from bedside.ingest.arrays import content_name, store_array, stored_form
from bedside.ingest.pairing import Pair


@dataclass(frozen=True)
class Conversion:
    """How pairs are converted.

    Attributes:
        contract: what they are checked against.
        folder: where arrays are written, under the names of their content; None: nowhere.
        seal: encrypt them.
    """

    contract: Contract
    folder: Path | None
    seal: bool = False


@dataclass(frozen=True)
class Converted:
    """A pair that keeps the contract; its arrays are in the folder.

    Attributes:
        image, label: as they will stand in the manifest.
        notes: what is worth a line in the case's record.
        label_apart_mm: how far the mask's grid was from the image's before it was laid on it; 0 without a mask.
    """

    image: VolumeRecord
    label: VolumeRecord | None
    notes: tuple[str, ...]
    label_apart_mm: float = 0.0


def convert(conversion: Conversion, pair: Pair) -> Converted | tuple[Refused, ...]:
    """Check one pair and write its arrays, or say why not; every file of the pair is in the answer.

    An `IntegrityError` here is a file that is still being written: it is refused, and the rest of the batch goes on.

    Raises:
        ResourceError: the disk is full.
    """
    contract, mask = conversion.contract, pair.mask
    own = tuple(path for path in pair.files if mask is None or path not in mask.files)
    if isinstance(mask, Refused):
        return (mask, *_refusals(own, "LABEL_MISSING", "The mask of this image was refused."))
    try:
        image = _fresh(pair.image.volume)
        _check_modality(pair.image, contract)
        notes = (*pair.image.notes, *contract.check_acquisition(pair.image.acquisition))
        contract.check_image(image)
        notes = (*notes, *contract.check_axes(image))
    except (InputRejected, IntegrityError) as error:
        orphaned = () if mask is None else mask.files
        return (
            *_refusals(own, error.code, error.sentence),
            *_refusals(orphaned, "LABEL_ORPHAN", "The image of this mask was refused."),
        )
    record = _stored(image.array, image.affine, pair.image, conversion)
    image = _fresh(image)  # its voxels are stored, and go before the mask's come; of a pair that is refused they are tidied away
    if mask is None:
        return Converted(record, None, notes)
    try:
        label, apart_mm = _label(_fresh(mask.volume), image, contract)
    except (InputRejected, IntegrityError) as error:
        return _refusals(pair.files, error.code, error.sentence)
    snapped = snap_note(apart_mm)
    stored = _stored(label, image.affine, mask, conversion, labels=contract.label_map_digest)
    return Converted(record, stored, notes if snapped is None else (*notes, snapped), apart_mm)


def _refusals(files: Sequence[Path], code: str, sentence: str) -> tuple[Refused, ...]:
    return (Refused(files, code, sentence),) if files else ()


def _fresh(volume: Volume) -> Volume:
    """The same volume not yet loaded, so that its voxels go when this pair is done, not when the whole batch is."""
    return volume.loaded_by(volume.load)


def _check_modality(found: Found, contract: Contract) -> None:
    if found.modality not in {"", contract.modality}:
        raise InputRejected(f"The image is no {contract.modality} but of another modality.", code="MODALITY")


def _label(mask: Volume, image: Volume, contract: Contract) -> tuple[Array, float]:
    """The mask in training ids on the image's own grid, and how far it lay from it in mm."""
    volume = _turned(mask, image)
    apart_mm = contract.check_label(image, volume)
    table = np.zeros(max(*contract.labels.values(), contract.unannotated or 0) + 1, dtype=np.uint8)
    table[list(contract.labels.values())] = range(len(contract.labels))
    if contract.unannotated is not None:
        table[contract.unannotated] = UNANNOTATED
    ids = np.empty(volume.shape, np.uint8, order="F")
    for k in range(volume.shape[3]):  # an index of a whole mask would take eight bytes per voxel
        ids[..., k] = table[volume.array[..., k].astype(np.uint16)]
    return ids, apart_mm


def _turned(label: Volume, image: Volume) -> Volume:
    """Permute and flip a mask's axes to the image's where both lie in space alike; nothing is interpolated.

    Converters of DICOM series commonly store rows the other way round and say so in the affine.
    """
    if label.shape == image.shape and farthest_corner_mm(label, image) <= CORNER_TOLERANCE_MM:
        return label
    back, upright = Reorientation.of(image), label.canonical()
    if upright.shape[1:] != back.shape(image):
        return label
    turned = Volume.of(back.undo(upright.array), _undone(back, image, upright.affine))
    near = turned.shape == image.shape and farthest_corner_mm(turned, image) <= CORNER_TOLERANCE_MM
    return turned if near else label


def _undone(back: Reorientation, image: Volume, upright: Affine) -> Affine:
    """The affine of an array in canonical axes after its axes were turned back into the image's."""
    turn = np.linalg.inv(image.affine) @ back.affine(image)
    return np.asarray(upright @ np.linalg.inv(turn))


def _stored(array: Array, affine: Affine, found: Found, conversion: Conversion, *, labels: str = "") -> VolumeRecord:
    """Write an array in stored form and describe it."""
    form = stored_form(array)
    folder = conversion.folder
    seal = conversion.seal
    name = content_name(form, seal=seal) if folder is None else store_array(folder, form, seal=seal)
    i, j, k, n = form.shape
    return VolumeRecord(
        file=name,
        affine=_rows(affine),
        shape=(i, j, k, n),
        source=found.source,
        geometry=found.geometry,
        frame=None if found.frame is None else _frame(found.frame),
        labels=labels,
    )


def _frame(frame: Frame) -> FrameRecord:
    return FrameRecord(affine=_rows(frame.affine), shape=frame.shape)


def _rows(affine: Affine) -> tuple[tuple[float, float, float, float], ...]:
    """Rows as numbers, without the minus of a negative zero."""
    return tuple((float(a) + 0.0, float(b) + 0.0, float(c) + 0.0, float(d) + 0.0) for a, b, c, d in affine)
