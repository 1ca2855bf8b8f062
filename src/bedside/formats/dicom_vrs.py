"""Value representations (PS3.5 6.2): how their lengths are written, and what they are where a file does not write them."""

LONG_VR_NAMES = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
"""With two reserved bytes and a length of four (PS3.5 7.1.2)."""
SHORT_VR_NAMES = frozenset(
    {"AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "PN", "SH", "SL", "SS", "ST", "TM", "UI", "UL", "US"}
)
"""With a length of two."""
LONG_VRS, SHORT_VRS = (frozenset(name.encode() for name in names) for names in (LONG_VR_NAMES, SHORT_VR_NAMES))
"""As they stand in a file."""
UNWRITTEN = {
    0x00189082: "FD",  # EffectiveEchoTime
    0x00189087: "FD",  # DiffusionBValue
    0x00189089: "FD",  # DiffusionGradientOrientation
    0x00209128: "UL",  # TemporalPositionIndex
    0x0020930D: "FD",  # TemporalPositionTimeOffset
    0x00209153: "FD",  # NominalCardiacTriggerDelayTime
    0x00209156: "US",  # FrameAcquisitionNumber
}
"""Of binary numbers that divide series, by tag (PS3.6). Everything else that is looked at is text, or a US by its place."""
