"""What the DICOM tests ask of a folder."""

from bedside.formats.dicom import read_folder
from bedside.formats.dicom_write import SeriesIdentity

IDENTITY = SeriesIdentity.of("P1", "1", manufacturer="ACME^Imaging", model="Ray 1")


def only(folder):
    """The one volume of a folder in which nothing is refused."""
    reading = read_folder(folder)
    assert [entry.sentence for entry in reading.refused] == []
    (found,) = reading.found
    return found


def codes(folder):
    """The codes of what is refused."""
    return {refused.code for refused in read_folder(folder).refused}
