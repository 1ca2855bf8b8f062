"""What a study decides about identity: the options of PS3.15 Annex E, and what a person has decided about pixels."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bedside.core.record import Record

Pixel = Annotated[int, Field(ge=0, le=65535)]


class PixelMask(Record):
    """Boxes to blank in every image that fits; a criterion that is None fits all.

    Attributes:
        modality: as in the header ("US", "SC", "CT", ...).
        manufacturer: as in the header, letters' case does not count.
        model: as in the header, letters' case does not count.
        rows, columns: of the image.
        boxes: (first column, first row, last column, last row) each, from 0, both ends included.
    """

    modality: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    rows: Pixel | None = None
    columns: Pixel | None = None
    boxes: tuple[tuple[Pixel, Pixel, Pixel, Pixel], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _ordered(self) -> "PixelMask":
        if any(right < left or bottom < top for left, top, right, bottom in self.boxes):
            raise ValueError("a box is (first column, first row, last column, last row); here a last one is before a first one")
        return self


class Deidentification(Record):
    """Which options of the Basic Profile are used (PS3.15 Annex E.3), and what was decided about pixels.

    Attributes:
        dates: "shift" moves every date of a patient by one secret number of days, so that intervals stay (113107); "remove" does
            as the Basic Profile; "keep" retains full dates (113106).
        device: keep the identity of devices (113109).
        institution: keep the identity of institutions (113112).
        patient_characteristics: keep sex, age, size, weight and the like (113108).
        descriptors: keep descriptions of studies and series after cleaning (113105): only words of a fixed list stay.
        safe_private: keep private elements of the safe list (113111).
        masks: burned-in text is blanked in images that fit; the others of suspicious classes wait in quarantine.
        released: SHA-256 of files that a person has looked at and found free of burned-in text.
        faces: "refuse" exports no recognisable face; "waive" does, with the reason below.
        faces_reason: why, for the certificate.
    """

    dates: Literal["shift", "remove", "keep"] = "shift"
    device: bool = False
    institution: bool = False
    patient_characteristics: bool = True
    descriptors: bool = False
    safe_private: bool = False
    masks: tuple[PixelMask, ...] = ()
    released: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...] = ()
    faces: Literal["refuse", "waive"] = "refuse"
    faces_reason: str = ""

    @model_validator(mode="after")
    def _reasoned(self) -> "Deidentification":
        if self.faces == "waive" and not self.faces_reason.strip():
            raise ValueError("faces: waive needs a faces_reason, which goes into the certificate")
        return self
