"""Studies with an answer key: what must be gone, what must stay, and what must have changed together, in ten kinds of checks.

The kinds are those of the MIDI-B benchmark (Medical Image De-Identification, 2024). Two things are stricter here: a file that is
missing fails all its checks, removals included, and a check that cannot be made is failed. A file that nobody can clean (an
encapsulated document) must not come out at all; one that does fails.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue

from bedside.data.identities import UID_ROOT
from bedside.formats.burned_in_pixels import Box
from bedside.formats.gate import FOREIGN_ERRORS

KINDS = (
    "tag_retained",
    "text_notnull",
    "text_retained",
    "text_removed",
    "date_shifted",
    "uid_changed",
    "uid_consistent",
    "patid_consistent",
    "pixels_hidden",
    "pixels_retained",
)
_UNREADABLE = (*FOREIGN_ERRORS, InvalidDicomError)
"""What a file that an engine under test has written may raise; a check that cannot be made is failed, never passed over."""
_NOT_NULL = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "Modality", "StudyDate")
_MARKS = ("PatientIdentityRemoved", "DeidentificationMethod")

Place = tuple[str, ...]
"""Keywords from the data set down to an attribute; of each sequence its first item."""


@dataclass(frozen=True)
class Answer:
    """What must become of one file.

    Attributes:
        path: of the received file.
        patient: whose it is.
        stays: attributes whose values must not change.
        words: attributes, and words of theirs that must stay.
        gone: texts that must not be in any byte of the written file.
        dates: attributes that must move by one number of days per patient.
        uids: attributes that must change, equal ones to equal ones.
        boxes: of the pixels, that must be constant; None when there are no pixels.
        comes_out: whether it may be written at all.
    """

    path: Path
    patient: str
    stays: tuple[Place, ...]
    words: Mapping[Place, tuple[str, ...]]
    gone: tuple[str, ...]
    dates: tuple[Place, ...]
    uids: tuple[Place, ...]
    boxes: tuple[Box, ...] | None
    comes_out: bool = True


@dataclass
class Score:
    """Checks made and passed, by kind.

    Attributes:
        made, passed: number of checks.
        failures: kind and attribute of what failed, and how often; never a value.
    """

    made: Counter[str] = field(default_factory=Counter)
    passed: Counter[str] = field(default_factory=Counter)
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, kind: str, what: str, *, passed: bool) -> None:
        """Count one check."""
        self.made[kind] += 1
        self.passed[kind] += passed
        if not passed:
            self.failures[kind, what] += 1

    @property
    def share(self) -> float:
        """Passed of all checks made."""
        return self.passed.total() / self.made.total()


@dataclass
class _Cohort:
    """What files say about each other."""

    days: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    uids: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    taken: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    patients: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    owners: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


def score(answers: Iterable[Answer], written: Mapping[Path, Path | None]) -> Score:
    """Compare what was written with the key.

    Args:
        answers: the key.
        written: received file to written file; None, or absent, where nothing was written.
    """
    result, cohort = Score(), _Cohort()
    pairs = [(answer, _read(answer.path), _read(written.get(answer.path))) for answer in answers]
    for answer, before, after in pairs:
        if answer.comes_out and before is not None and after is not None:
            _learn(answer, before, after, cohort)
    for answer, before, after in pairs:
        out = written.get(answer.path)
        if not answer.comes_out:
            for _ in answer.gone:
                result.add("text_removed", "encapsulated document", passed=out is None)
            continue
        content = out.read_bytes() if out is not None else b""
        for kind, what in _checks(answer):
            held = before is not None and after is not None and _holds(kind, what, answer, (before, after, content), cohort)
            result.add(kind, ".".join(what) if kind != "text_removed" else "text", passed=held)
    return result


def _read(path: Path | None) -> Dataset | None:
    if path is None:
        return None
    try:
        return dcmread(path)
    except _UNREADABLE:
        return None


def _checks(answer: Answer) -> Iterator[tuple[str, Place]]:
    """Every check of a file, as kind and place; of a text to be removed, the text."""
    yield from (("tag_retained", place) for place in answer.stays)
    yield from (("text_notnull", (keyword,)) for keyword in (*_NOT_NULL, *_MARKS))
    yield from (("text_retained", (*place, word)) for place, words in answer.words.items() for word in words)
    yield from (("text_removed", (text,)) for text in answer.gone)
    yield from (("date_shifted", place) for place in answer.dates)
    yield from (("uid_changed", place) for place in answer.uids)
    yield from (("uid_consistent", place) for place in answer.uids)
    yield "patid_consistent", ("PatientID",)
    if answer.boxes:
        yield "pixels_hidden", ("PixelData",)
    if answer.boxes is not None:
        yield "pixels_retained", ("PixelData",)


def _holds(kind: str, what: Place, answer: Answer, files: tuple[Dataset, Dataset, bytes], cohort: _Cohort) -> bool:
    """Whether one check is passed; one that cannot be made is not."""
    before, after, content = files
    try:
        if kind == "text_removed":
            return what[0].lower().encode() not in content.lower() and what[0].encode("utf-16-le") not in content
        if kind == "text_retained":
            return what[-1] in _value(after, what[:-1]).split()
        if kind == "text_notnull":
            return bool(_value(after, what))
        if kind == "tag_retained":
            return _value(before, what) == _value(after, what) != ""
        if kind in {"pixels_hidden", "pixels_retained"}:
            return _pixels(kind, answer.boxes or (), before, after)
        return _related(kind, answer, _value(before, what), _value(after, what), cohort)
    except _UNREADABLE:
        return False


def _related(kind: str, answer: Answer, old: str, new: str, cohort: _Cohort) -> bool:
    """Checks of one value against others of the cohort."""
    if kind == "date_shifted":
        return bool(new) and _days(old, new) != 0 and len(cohort.days[answer.patient]) == 1
    if kind == "uid_changed":
        return bool(new) and new != old and not new.startswith(UID_ROOT)
    if kind == "uid_consistent":
        return cohort.uids[old] == {new} and cohort.taken[new] == {old}
    return new != old and cohort.patients[answer.patient] == {new} and cohort.owners[new] == {answer.patient}


def _learn(answer: Answer, before: Dataset, after: Dataset, cohort: _Cohort) -> None:
    """Remember what became of dates, UIDs and patients."""
    for place in answer.dates:
        try:
            cohort.days[answer.patient].add(_days(_value(before, place), _value(after, place)))
        except _UNREADABLE:
            cohort.days[answer.patient].add(0)
    for place in answer.uids:
        try:
            old, new = _value(before, place), _value(after, place)
        except _UNREADABLE:
            continue
        cohort.uids[old].add(new)
        cohort.taken[new].add(old)
    patient = str(after.get("PatientID", ""))
    cohort.patients[answer.patient].add(patient)
    cohort.owners[patient].add(answer.patient)


def _value(data: Dataset, place: Place) -> str:
    """An attribute's value as text.

    Raises:
        KeyError: it is not there.
    """
    for keyword in place[:-1]:
        data = data[keyword].value[0]
    value = data[place[-1]].value
    return "" if value is None else "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)


def _days(old: str, new: str) -> int:
    """Whole days from one DA or DT value to another; the time of day of a DT must be the same."""
    if old[8:] != new[8:]:
        raise ValueError("the time of day changed")
    first, last = (datetime.strptime(value[:8], "%Y%m%d") for value in (old, new))  # noqa: DTZ007 - a difference of days
    return (last - first).days


def _pixels(kind: str, boxes: tuple[Box, ...], before: Dataset, after: Dataset) -> bool:
    """Whether boxes are constant, or everything else is as it was."""
    old, new = before.pixel_array, after.pixel_array
    if old.shape != new.shape or old.dtype != new.dtype:
        return False
    covered = np.zeros(old.shape[:2], bool)
    for left, top, right, bottom in boxes:
        covered[top : bottom + 1, left : right + 1] = True
    if kind == "pixels_retained":
        return bool(np.array_equal(old[~covered], new[~covered]))
    return all(bool((new[top : bottom + 1, left : right + 1] == new[top, left]).all()) for left, top, right, bottom in boxes)
