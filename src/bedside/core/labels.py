"""The label map: which structure has which code, under which term, in which order; and what differs between two of them."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_serializer, field_validator

from bedside.core.digest import digest_json
from bedside.core.errors import IntegrityError, UsageError
from bedside.core.record import Record

UNANNOTATED = 255
"""Training id of a voxel that nobody annotated; the codes just below it say of partial annotation, see `tasks.annotation`."""
FIRST_CODE = 239
"""Training ids from here on are no structures."""

Labels = dict[str, Annotated[int, Field(ge=0, le=65535)]]
Coded = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.:^-]+$")]


class Term(Record):
    """What a structure is called in a terminology, so that two hospitals mean the same by it.

    Attributes:
        scheme: CodingSchemeDesignator of PS3.16 8: "SCT" (SNOMED CT), "FMA", "99BEDSIDE".
        value: the code: "71341001" is the bone structure of the femur in SNOMED CT.
        meaning: the term in words.
    """

    scheme: Coded = "SCT"
    value: Coded
    meaning: Annotated[str, Field(min_length=1, max_length=64)]

    @field_validator("value", mode="before")
    @classmethod
    def _as_word(cls, value: object) -> object:
        """YAML reads a code of digits as a number."""
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class LabelMap(Record):
    """What the numbers of a mask mean.

    Attributes:
        labels: structure name to the code it has in the source's masks, background first; training ids are the positions.
        terms: structure name to its term; structures without one are allowed.
        version: the maker's own name for this state of the map.
    """

    labels: Labels = Field(min_length=2)
    terms: dict[str, Term] = Field(default_factory=dict)
    version: str = "1"

    @field_validator("labels", mode="before")
    @classmethod
    def _from_pairs(cls, labels: object) -> object:
        return from_pairs(labels)

    @field_serializer("labels", when_used="json")
    def _as_pairs(self, labels: dict[str, int]) -> list[tuple[str, int]]:
        return list(labels.items())

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: dict[str, int]) -> dict[str, int]:
        return distinct(labels)

    @field_validator("terms")
    @classmethod
    def _of_structures(cls, terms: dict[str, Term], info: ValidationInfo) -> dict[str, Term]:
        return of_structures(terms, info.data.get("labels", {}))

    @property
    def digest(self) -> str:
        """The name of this map by its content; it stands beside every mask that was made with it."""
        return digest_json(self.model_dump(mode="json"))


class LabelChange(Record):
    """One difference between two label maps.

    Attributes:
        kind: what changed. "order" is the training id, "code" the number in the source's masks.
        name: the structure.
        before, after: the id, code, term or version in words; "" where there is none.
        breaks: whether a model trained on one map would be wrong on the other.
    """

    kind: Literal["added", "removed", "order", "code", "term", "version"]
    name: str
    before: str
    after: str
    breaks: bool


class LabelDiff(Record):
    """Every difference between two label maps, those that break a model first."""

    before: str
    after: str
    changes: tuple[LabelChange, ...]

    @property
    def breaks(self) -> bool:
        """Whether a model trained on one would be wrong on the other."""
        return any(change.breaks for change in self.changes)


def diff_labels(before: LabelMap, after: LabelMap) -> LabelDiff:
    """List what differs.

    A model puts out training ids: another set, another order or another meaning of names breaks it. Another code in the
    source's masks does not, because ingest maps codes to ids; another version alone does not either.
    """
    changes = [*_membership(before, after), *_order(before, after), *_codes(before, after), *_terms(before, after)]
    if before.version != after.version:
        changes.append(LabelChange(kind="version", name="", before=before.version, after=after.version, breaks=False))
    changes.sort(key=lambda change: not change.breaks)
    return LabelDiff(before=before.digest, after=after.digest, changes=tuple(changes))


def compatible(first: LabelMap, second: LabelMap) -> bool:
    """Whether a model trained on one map says the right thing on the other."""
    return first.digest == second.digest or not diff_labels(first, second).breaks


def check_meeting(first: LabelMap, second: LabelMap, masks: Iterable[str]) -> None:
    """Refuse a model or study and a dataset that mean different things by the same numbers.

    Args:
        first: of the model or study.
        second: of the dataset.
        masks: digests of the label maps that the dataset's masks were made with; "" of masks that say none.

    Raises:
        UsageError: LABEL_MAP: names, order or terms differ (other codes in the source's masks do not matter here).
        IntegrityError: LABEL_MAP: a mask was made with another map than its dataset says.
    """
    changes = [change for change in diff_labels(first, second).changes if change.breaks]
    if changes:
        told = ", ".join(f"{change.name} ({change.kind})" for change in changes[:5])
        raise UsageError(
            f"The label maps differ: {told}{', ...' if len(changes) > 5 else ''}; use the dataset that belongs to this label map"
            " (bedside labels lists every difference).",
            code="LABEL_MAP",
        )
    if set(masks) - {"", second.digest}:
        raise IntegrityError("A mask of the dataset was made with another label map than the dataset's.", code="LABEL_MAP")


def label_map_words(digest: str) -> str:
    """The words by which the file of a mask names its label map: 74 letters with a whole digest."""
    return f"label map {digest}"


def from_pairs(labels: object) -> object:
    """Read [[name, code], ...] as a mapping in that order; anything else is returned as it is, for pydantic to judge."""
    if not isinstance(labels, list | tuple):
        return labels
    found: dict[str, object] = {}
    for pair in labels:
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str)):
            return labels
        if pair[0] in found:
            raise ValueError("two structures share one name")
        found[pair[0]] = pair[1]
    return found


def distinct(labels: dict[str, int]) -> dict[str, int]:
    """Refuse, with ValueError, two structures of one code."""
    if len(set(labels.values())) != len(labels):
        raise ValueError("two structures share one code")
    return labels


def of_structures(terms: dict[str, Term], labels: dict[str, int]) -> dict[str, Term]:
    """Refuse, with ValueError, a term of no structure and two structures of one term."""
    strange = sorted(set(terms) - set(labels))
    if strange and labels:
        raise ValueError(f"labels do not name the structures {', '.join(strange)}")
    if len({(term.scheme, term.value) for term in terms.values()}) != len(terms):
        raise ValueError("two structures share one term")
    return terms


def _membership(before: LabelMap, after: LabelMap) -> list[LabelChange]:
    ids, new_ids = _ids(before), _ids(after)
    removed = [
        LabelChange(kind="removed", name=name, before=f"id {ids[name]}", after="", breaks=True)
        for name in before.labels
        if name not in after.labels
    ]
    added = [
        LabelChange(kind="added", name=name, before="", after=f"id {new_ids[name]}", breaks=True)
        for name in after.labels
        if name not in before.labels
    ]
    return [*removed, *added]


def _order(before: LabelMap, after: LabelMap) -> list[LabelChange]:
    ids, new_ids = _ids(before), _ids(after)
    moved = [name for name in ids if name in new_ids and ids[name] != new_ids[name]]
    return [
        LabelChange(kind="order", name=name, before=f"id {ids[name]}", after=f"id {new_ids[name]}", breaks=True) for name in moved
    ]


def _codes(before: LabelMap, after: LabelMap) -> list[LabelChange]:
    both = [name for name in before.labels if name in after.labels and before.labels[name] != after.labels[name]]
    return [
        LabelChange(kind="code", name=n, before=f"code {before.labels[n]}", after=f"code {after.labels[n]}", breaks=False)
        for n in both
    ]


def _terms(before: LabelMap, after: LabelMap) -> list[LabelChange]:
    changes = []
    for name in before.labels:
        old, new = before.terms.get(name), after.terms.get(name)
        if name in after.labels and old != new:
            another = old is not None and new is not None and (old.scheme, old.value) != (new.scheme, new.value)
            changes.append(LabelChange(kind="term", name=name, before=_words(old), after=_words(new), breaks=another))
    return changes


def _words(term: Term | None) -> str:
    return "" if term is None else f"{term.scheme} {term.value} ({term.meaning})"


def _ids(of: LabelMap) -> dict[str, int]:
    return {name: number for number, name in enumerate(of.labels)}
