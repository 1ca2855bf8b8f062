"""How a file that was de-identified here is known again: by a seal that only the holder of the key can make.

It stands with the equipment that contributed to the instance (PS3.3 C.12.1). (0012,0063) is the patient's: it must be the same in
all of a patient's files, and an archive may see to that. There it stood at first, and there it is still looked for.
"""

from typing import TYPE_CHECKING

from bedside.core.identity import Identity
from bedside.formats.dicom_elements import Elements
from bedside.formats.dicom_values import text

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_PATIENT_ID, _REMOVED, _STUDY_UID, _SOP_UID, _EQUIPMENT = 0x00100020, 0x00120062, 0x0020000D, 0x00080018, 0x0018A001
_METHOD = 0x00120063
_DEIDENTIFYING = ("109104", "DCM", "De-identifying Equipment")


def already(elements: Elements, identity: Identity) -> bool:
    """Whether a file was de-identified here with this key: its PatientID is a pseudonym and must not be hashed again.

    Nobody without the key can make the seal that is checked.
    """
    if identity.mode == "keep" or text(elements, _REMOVED) != "YES":
        return False
    seal = identity.seal(*(text(elements, tag) for tag in (_PATIENT_ID, _STUDY_UID, _SOP_UID)))
    return seal.encode() in elements.below(_EQUIPMENT) or f"seal {seal}" in text(elements, _METHOD).split("\\")


def put_seal(dataset: "Dataset", seal: str, *, tool: str, version: str) -> None:
    """Name the tool and the seal as the first equipment that is listed; what the tool wrote there before goes."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    from bedside.formats.dicom_codes import coded

    ours = Dataset()
    ours.PurposeOfReferenceCodeSequence = Sequence([coded(*_DEIDENTIFYING)])
    ours.Manufacturer, ours.SoftwareVersions, ours.ContributionDescription = tool, version, seal
    others = [item for item in dataset.get("ContributingEquipmentSequence") or () if not _is_of(item, tool)]
    dataset.ContributingEquipmentSequence = Sequence([ours, *others])


def _is_of(item: "Dataset", tool: str) -> bool:
    purposes = item.get("PurposeOfReferenceCodeSequence") or ()
    return item.get("Manufacturer") == tool and any(code.get("CodeValue") == _DEIDENTIFYING[0] for code in purposes)
