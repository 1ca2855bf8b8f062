"""Bytes to core types and back: NIfTI and DICOM, each behind one bounded gate."""
