"""How a file that was de-identified here is known again: by a seal that only the holder of the key can make."""

from bedside.core.identity import Identity
from bedside.formats.dicom_elements import Elements
from bedside.formats.dicom_values import text

_PATIENT_ID, _REMOVED, _METHOD, _STUDY_UID, _SOP_UID = 0x00100020, 0x00120062, 0x00120063, 0x0020000D, 0x00080018


def already(elements: Elements, identity: Identity) -> bool:
    """Whether a file was de-identified here with this key: its PatientID is a pseudonym and must not be hashed again.

    Nobody without the key can make the seal that is checked.
    """
    if identity.mode == "keep" or text(elements, _REMOVED) != "YES":
        return False
    seal = identity.seal(*(text(elements, tag) for tag in (_PATIENT_ID, _STUDY_UID, _SOP_UID)))
    return f"seal {seal}" in text(elements, _METHOD).split("\\")
