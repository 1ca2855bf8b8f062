"""Private elements that are known to hold no identity: a subset of PS3.15 Table E.3.10-1, numbers and codes only."""

from collections.abc import Mapping

SAFE_PRIVATE: Mapping[tuple[str, int, int], str] = {
    ("ELSCINT1", 0x00E1, 0x21): "DS",
    ("ELSCINT1", 0x01E1, 0x26): "CS",
    ("ELSCINT1", 0x01F1, 0x07): "DS",
    ("ELSCINT1", 0x01F1, 0x26): "DS",
    ("GEMS_ACQU_01", 0x0019, 0x23): "DS",
    ("GEMS_ACQU_01", 0x0019, 0x24): "DS",
    ("GEMS_ACQU_01", 0x0019, 0x27): "DS",
    ("GEMS_PARM_01", 0x0043, 0x27): "SH",
    ("GEMS_PARM_01", 0x0043, 0x39): "IS",
    ("GEMS_PARM_01", 0x0043, 0x6F): "DS",
    ("Philips Imaging DD 001", 0x2001, 0x03): "FL",
    ("Philips Imaging DD 001", 0x2001, 0x04): "CS",
    ("Philips MR Imaging DD 001", 0x2005, 0x0D): "FL",
    ("Philips MR Imaging DD 001", 0x2005, 0x0E): "FL",
    ("Philips MR Imaging DD 001", 0x2005, 0xB0): "FL",
    ("Philips MR Imaging DD 001", 0x2005, 0xB1): "FL",
    ("Philips MR Imaging DD 001", 0x2005, 0xB2): "FL",
    ("Philips PET Private Group", 0x7053, 0x00): "DS",
    ("Philips PET Private Group", 0x7053, 0x09): "DS",
    ("SIEMENS MR HEADER", 0x0019, 0x0C): "IS",
    ("SIEMENS MR HEADER", 0x0019, 0x0D): "CS",
    ("SIEMENS MR HEADER", 0x0019, 0x0E): "FD",
    ("SIEMENS MR HEADER", 0x0019, 0x27): "FD",
}
"""(creator, group, element below 0100) to VR. A value that is not of its VR's form is removed all the same."""


def safe_vr(creator: str, tag: int) -> str:
    """The VR of a safe private element, "" for every other one."""
    return SAFE_PRIVATE.get((creator.strip(), tag >> 16, tag & 0xFF), "")
