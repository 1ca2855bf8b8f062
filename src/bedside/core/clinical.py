"""Clinical columns: what a table beside the scans may hold, one promise per column."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from bedside.core.record import Record

Bound = Annotated[float, Field(allow_inf_nan=False)]
MISSING = ("", "NA", "N/A", "NaN", "null", "None", "unknown", "-9", "-99", "-999")
"""Codes that registries and statistics packages write where a value is missing; compared without regard to case."""


class Column(Record):
    """One column of the clinical table.

    Attributes:
        kind: "number", "category" (one of `categories`), "text", or "flag" (yes or no).
        unit: of a number, for people: "years", "mg/dl".
        range: smallest and largest number that is possible at all.
        categories: what a category may be, as written in the table; empty for every other kind.
        required: whether a row without it is refused.
        missing: codes that stand for a missing value. A number outside `range` is no missing value unless its code is here.
    """

    kind: Literal["number", "category", "text", "flag"]
    unit: str = ""
    range: tuple[Bound, Bound] | None = None
    categories: tuple[str, ...] = ()
    required: bool = False
    missing: tuple[str, ...] = MISSING

    @field_validator("categories", "missing", mode="before")
    @classmethod
    def _as_words(cls, words: object) -> object:
        """YAML reads 1, 2 and -9 as numbers; in the table they are words."""
        if not isinstance(words, list | tuple):
            return words
        return tuple(str(word) if isinstance(word, int | float) and not isinstance(word, bool) else word for word in words)

    @model_validator(mode="after")
    def _agree(self) -> "Column":
        if self.range is not None and self.range[0] > self.range[1]:
            raise ValueError(f"the lower limit {self.range[0]:g} is above the upper limit {self.range[1]:g}")
        if self.range is not None and self.kind != "number":
            raise ValueError(f"a {self.kind} has no range")
        if bool(self.categories) != (self.kind == "category"):
            raise ValueError("a category lists its categories, and no other kind does")
        return self

    def is_missing(self, cell: str) -> bool:
        """Whether a cell, blanks around it aside, says that the value is missing."""
        word = cell.strip().casefold()
        return not word or word in {code.casefold() for code in self.missing}
