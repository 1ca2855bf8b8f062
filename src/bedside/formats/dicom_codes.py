"""Coded entries (PS3.3 8.8): what an item of a code sequence says."""

from pydicom.dataset import Dataset


def coded(value: str, scheme: str, meaning: str) -> Dataset:
    """One item; `scheme` is the designator of the coding scheme, "DCM", "SCT", ..."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item
