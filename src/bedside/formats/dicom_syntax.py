"""Transfer syntaxes that are read, and which library turns the bytes of each into numbers."""

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec

import numpy as np

from bedside.core.errors import InputRejected

DEFLATED = "1.2.840.10008.1.2.1.99"
IMPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
RLE = "1.2.840.10008.1.2.5"
NATIVE = frozenset({IMPLICIT, "1.2.840.10008.1.2.1", DEFLATED, BIG_ENDIAN})
JPEG_BASELINE, JPEG_EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS = frozenset({"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"})
JPEG_LS = frozenset({"1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"})
_JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203))


@dataclass(frozen=True)
class Decoder:
    """Who decodes a compressed transfer syntax.

    Attributes:
        plugin: pydicom's name of it.
        module: what is imported.
        package: what is installed.
    """

    plugin: str
    module: str
    package: str


_GDCM = Decoder("gdcm", "gdcm", "python-gdcm")
_OPENJPEG = Decoder("pylibjpeg", "openjpeg", "pylibjpeg-openjpeg")
_CHARLS = Decoder("pyjpegls", "jpeg_ls", "pyjpegls")
_PYDICOM = Decoder("pydicom", "pydicom", "pydicom")

DECODERS = {
    RLE: _PYDICOM,
    **dict.fromkeys((JPEG_BASELINE, JPEG_EXTENDED, *sorted(JPEG_LOSSLESS)), _GDCM),
    **dict.fromkeys(sorted(JPEG_LS), _CHARLS),
    **dict.fromkeys(sorted(_JPEG_2000), _OPENJPEG),
}
"""By compressed transfer syntax. None of them is under the GPL (pylibjpeg-libjpeg, which is, is never asked for)."""


def check_syntax(syntax: str) -> None:
    """Refuse what cannot be decoded, and name the library that is not installed.

    Raises:
        InputRejected: DCM_SYNTAX.
    """
    if syntax in NATIVE:
        return
    decoder = DECODERS.get(syntax)
    if decoder is None:
        raise InputRejected(
            f"The pixels are stored as {_keyword(syntax)}, for which there is no decoder here; decompress them.",
            code="DCM_SYNTAX",
        )
    if find_spec(decoder.module) is None:
        raise InputRejected(
            f"The pixels are stored as {_keyword(syntax)}, and its decoder is not installed; install {decoder.package}.",
            code="DCM_SYNTAX",
        )


def _keyword(syntax: str) -> str:
    """What the standard calls a transfer syntax (PS3.6 table A-1)."""
    from pydicom.uid import AllTransferSyntaxes

    return next((uid.keyword for uid in AllTransferSyntaxes if uid == syntax), "an unknown transfer syntax")


@lru_cache(maxsize=32)
def decoder_of(syntax: str) -> str:
    """Which library turns the bytes of a transfer syntax into numbers, with its version."""
    if syntax in NATIVE:
        return f"numpy {np.__version__}"
    from importlib.metadata import version

    package = DECODERS[syntax].package
    if package == "python-gdcm":
        return f"{package} {version(package)}"
    plain = f"pydicom {version('pydicom')}"
    return plain if package == "pydicom" else f"{plain} with {package} {version(package)}"
