"""Where the model comes from is known, and the rules were fixed before the test split was looked at."""

from typing import ClassVar

from bedside.core.record import Part


class Provenance(Part):
    """The chain of custody holds from the candidate back to accepted scans.

    Attributes:
        clean_code: whether a model trained from an edited checkout (commit ends in "+") is refused too.
    """

    kind: ClassVar[str] = "gate"
    part_name: ClassVar[str] = "provenance"

    clean_code: bool = False
