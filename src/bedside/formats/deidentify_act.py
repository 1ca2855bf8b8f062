"""Acting on the elements of one data set as the rules decide, at every level. No value leaves this module but in the data set."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pydicom.datadict import dictionary_has_tag, dictionary_keyword, dictionary_VM, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from bedside.core.errors import InputRejected
from bedside.core.identity import Identity
from bedside.formats.deidentify_known import MOST_STRINGS, Known
from bedside.formats.deidentify_private import BINARY_NUMBERS, TEXT_NUMBERS, safe_vr
from bedside.formats.deidentify_rules import CHARACTER_SET, ISSUER, PATIENT_ID, PATIENT_NAME, Decision
from bedside.formats.deidentify_values import (
    DUMMIES,
    ENUMERATED,
    capped_age,
    cleaned,
    shifted_date,
    shifted_moment,
    sound_time,
)
from bedside.formats.dicom_codes import coded
from bedside.formats.dicom_elements import PIXEL_DATA
from bedside.formats.dicom_vrs import LONG_VR_NAMES

_STANDARD_UIDS = "1.2.840.10008."
_UID = re.compile(r"[0-9.]{1,64}\Z")
_CODE = re.compile(r"[A-Z0-9 _.+/:^-]{0,32}\Z")
"""Code strings as scanners write them, a little wider than PS3.5 6.2 allows; small letters make it free text."""
_SAFE_CODE = re.compile(r"[A-Z0-9_.:]{0,16}\Z")
_NUMBER = frozenset("0123456789+-.eE \0")
_IS_NUMBER = re.compile(r"[0-9+.eE \0-]*\Z")
_AGE = frozenset("0123456789DWMY \0")
_CODES = frozenset(
    {0x00080050, 0x00100020, 0x00101000, 0x00101040, 0x00101050, 0x00101090, 0x00102154, 0x00102155, 0x00380010, 0x00380060}
    | {0x00402016, 0x00402017, 0x00401001, 0x00400009, 0x00400253, 0x00080092, 0x00080094, 0x00100033}
    | {0x00080080, 0x00080081, 0x00081040, 0x00120040, 0x00120042, 0x0040050A}
)
_PLACES = frozenset({0x00080080, 0x00080081, 0x00081040})
_BIRTH = 0x00100030
_SIGNED, _LONGEST_SHORT = 0x00280103, 0xFFFE
_WIDTHS = {"AT": 4, "FD": 8, "FL": 4, "SL": 4, "SS": 2, "SV": 8, "UL": 4, "US": 2, "UV": 8}
_CONTENT, _OBSERVER, _FLOW, _WAVEFORM, _PERSON_CODE = 0x0040A730, 0x0040A073, 0x00340001, 0x0040B020, "CodeSequence"


@dataclass
class Acting:
    """The work on one file.

    Attributes:
        identity: with the key.
        decide: tag, VR in the file and whether types are known, to what is to be done.
        classic: whether the types of attributes are known for this object.
        patient: pseudonym.
        days: that all dates are moved by.
        again: whether the file was de-identified here before: UIDs stay, and nothing in it is the patient's.
        keeps_dates: whether dates stay, so that a date of birth may also be another date.
        max_depth: of nested sequences. The walk before bounds only those that it can tell from bytes: not those of known length
            without a VR, where it was not told their tags.
        names_types: whether the file is written in explicit VR, little endian, where an element of VR UN is one in implicit VR.
        done: (tag, what, rule) to how often.
        received: PatientID of the file.
    """

    identity: Identity
    decide: Callable[[int, str, bool], Decision]
    classic: bool
    patient: str
    days: int
    again: bool
    keeps_dates: bool
    max_depth: int
    names_types: bool = False
    done: Counter[tuple[int, str, str]] = field(default_factory=Counter)
    received: str = field(default="", repr=False)
    _names: set[str] = field(default_factory=set, repr=False)
    _codes: set[str] = field(default_factory=set, repr=False)
    _uids: set[str] = field(default_factory=set, repr=False)
    _moved: set[str] = field(default_factory=set, repr=False)
    _known: Known = field(default_factory=Known, repr=False)
    _sound: set[tuple[int, str | None, bytes | None]] = field(default_factory=set, repr=False)
    _depth: int = 0
    _signed: bool = False

    def known(self) -> Known:
        """Everything to look for in what is written."""
        codes = self._known.codes - self._moved  # another day that was moved onto the date of birth says nothing
        return Known(self._known.words, codes, Known.of((), (), self._uids).uids)

    def learn(self, dataset: Dataset) -> None:
        """Collect persons' names, identifiers and dates of birth from the whole file.

        Raises:
            InputRejected: DCM_ELEMENTS: more of them than belong to one patient; DCM_DEPTH.
        """
        if _SIGNED in dataset:
            said = dataset.get_item(_SIGNED).value
            self._signed = (int.from_bytes(said, "little") if isinstance(said, bytes) else said) == 1
        if not self.again:
            self._collect(dataset)
        self._known = Known.of(self._names, self._codes, self._uids)
        if len(self._known) > MOST_STRINGS:
            raise InputRejected(
                f"The file holds {len(self._known)} names and identifiers of persons; at most {MOST_STRINGS} are looked for.",
                code="DCM_ELEMENTS",
            )

    def _collect(self, dataset: Dataset) -> None:
        for tag, received in list(dataset.items()):
            number = int(tag)
            element = self._named(dataset, number, received)
            vr = _vr(element) or _defined(number)
            if vr == "SQ" and not (number >> 16) % 2 and _defined(number) == "SQ":
                for item in self._items(dataset, number):
                    self._collect(item)
            elif vr == "PN" or _defined(number) == "PN":
                self._names.update(_strings(dataset, number))
            elif number in _CODES:
                if number not in _PLACES or self.decide(number, vr, self.classic).what != "checked":
                    self._codes.update(_strings(dataset, number))
            elif number == _BIRTH:
                self._codes.update(form for text in _strings(dataset, number) for form in self._births(text))

    def _items(self, dataset: Dataset, tag: int) -> Iterator[Dataset]:
        """The items of a sequence, counted as one level deeper until all of them were given."""
        if self._depth == self.max_depth:
            raise InputRejected(f"Sequences are nested deeper than {self.max_depth}.", code="DCM_DEPTH")
        self._depth += 1
        yield from dataset[tag].value or ()
        self._depth -= 1

    def _births(self, text: str) -> tuple[str, ...]:
        year, month, day = text[:4], text[4:6], text[6:8]
        if len(text) != 8 or not text.isdigit():
            return (text,)
        spelled = (f"{year}-{month}-{day}", f"{day}.{month}.{year}", f"{month}/{day}/{year}", f"{day}/{month}/{year}")
        return spelled if self.keeps_dates else (text, *spelled)

    def clean(self, dataset: Dataset) -> None:
        """Do to every element what the rules say, sequences included.

        Raises:
            InputRejected: DCM_DEPTH.
        """
        for tag, element in list(dataset.items()):
            self._element(dataset, int(tag), element)
        if CHARACTER_SET in dataset:
            del dataset[CHARACTER_SET]

    def _named(self, dataset: Dataset, tag: int, element: DataElement | RawDataElement) -> DataElement | RawDataElement:
        """The element with its VR: PS3.5 6.2.2 has UN hold what implicit VR would, so the dictionary knows what it is.

        It stays UN, and so is removed, where the dictionary does not know it, or where its length is not one of such a value.
        """
        if not self.names_types or not isinstance(element, RawDataElement) or element.VR not in {"UN", None}:
            return element
        vr = _defined(tag)
        if " or " in vr:
            vr = "OW" if "OW" in vr else "SS" if self._signed else "US"
        if not _fits(tag, vr, len(element.value or b"")):
            vr = "UN"
        named = element._replace(VR=vr, is_implicit_VR=True)
        dataset[tag] = named
        return named

    def _element(self, dataset: Dataset, tag: int, received: DataElement | RawDataElement) -> None:
        element = self._named(dataset, tag, received)
        decision = self.decide(tag, _vr(element), self.classic)
        if decision.what == "kept":
            return
        seen = (tag, element.VR, element.value) if isinstance(element, RawDataElement) and decision.what in _SILENT else None
        if seen in self._sound:
            return
        if decision.what == "marked":
            if tag != CHARACTER_SET:
                del dataset[tag]
            return
        if decision.what == "entered" or (_defined(tag) == "SQ" and decision.what in {"checked", "cleaned"}):
            for item in self._items(dataset, tag):
                self.clean(item)
            return
        what = decision.what
        if what in _BY_VALUE and not self._acted(dataset, tag, what):
            what = decision.otherwise
        elif seen is not None and what != "private" and dataset.get_item(element.tag) is element:
            self._sound.add(seen)
        if what in _BY_FORM:
            _BY_FORM[what](dataset, tag)
        if what not in _SILENT:
            self.done[tag, what, decision.because] += 1

    def _acted(self, dataset: Dataset, tag: int, what: str) -> bool:
        """Do what depends on the value; False when the value is not of the form it should have."""
        if what == "pseudonym":
            return self._pseudonym(dataset, tag)
        if what == "private":
            return _keep_private(dataset, tag, self._known)
        values = _strings(dataset, tag)
        changed = [self._changed(value, tag, what) for value in values]
        if any(value and not new for value, new in zip(values, changed, strict=True)):
            return False
        _put_text(dataset, tag, changed, unchanged=changed == values)
        return True

    def _changed(self, value: str, tag: int, what: str) -> str:
        """One value, changed; "" where it may not stay."""
        defined = _defined(tag)
        if what == "mapped":
            return self._mapped(value)
        if what == "class":
            return value if _UID.match(value) else ""
        if what == "capped":
            return capped_age(value)
        if what == "cleaned":
            text = cleaned(value)
            return "" if self._known.in_text(text) else text
        if defined in {"DA", "DT", "TM"}:
            return self._date(value, defined, self.days if what == "shifted" else 0)
        allowed = _AGE if defined == "AS" else _NUMBER if defined in {"DS", "IS"} else None
        if allowed is not None and set(value) - allowed:
            return ""
        if tag in ENUMERATED and value not in ENUMERATED[tag]:
            return ""
        if defined == "CS" and not _CODE.match(value):
            return ""
        return "" if self._known.in_text(value, number=allowed is _NUMBER) else value

    def _date(self, value: str, vr: str, days: int) -> str:
        if vr == "TM":
            return sound_time(value)
        moved = shifted_date(value, days) if vr == "DA" else shifted_moment(value, days)
        self._moved.add(moved[:8])
        return moved

    def _mapped(self, value: str) -> str:
        """A UID's stand-in; UIDs that the standard defines say nothing of anybody."""
        if value.startswith(_STANDARD_UIDS) or self.again:
            return value if _UID.match(value) else ""
        self._uids.add(value)
        return self.identity.uid(value)

    def _pseudonym(self, dataset: Dataset, tag: int) -> bool:
        """PatientID and PatientName; those of another patient in a sequence become that patient's."""
        if tag == PATIENT_NAME:
            dataset.PatientName = ""  # written once the level's PatientID is known, at the root
            return True
        received = unicodedata.normalize("NFC", next(iter(_strings(dataset, PATIENT_ID)), ""))
        issuer = next(iter(_strings(dataset, ISSUER)), "") if ISSUER in dataset else ""
        own = self.again or received in {"", self.received}
        dataset.PatientID = self.patient if own else self.identity.patient(received, issuer)
        return True


_BY_VALUE = frozenset({"mapped", "class", "shifted", "capped", "cleaned", "checked", "number", "pseudonym", "private"})
_SILENT = frozenset({"checked", "class", "number", "kept", "private"})


def _vr(element: DataElement | RawDataElement) -> str:
    """The VR that the file gives, "" where it gives none."""
    return str(element.VR or "")


def _defined(tag: int) -> str:
    return _VRS.get(tag) or _VRS.setdefault(tag, _looked_up(tag))


def _fits(tag: int, vr: str, length: int) -> bool:
    """Whether a value of unwritten VR may be one of this VR; bytes without a form (OB, OW, ...) only if they are the pixels."""
    if vr in _WIDTHS:
        count, rest = divmod(length, _WIDTHS[vr])
        most = dictionary_VM(tag).rpartition("-")[2]
        return rest == 0 and (most.endswith("n") or count <= int(most))
    if vr.startswith("O"):
        return tag == PIXEL_DATA
    return vr in LONG_VR_NAMES or (vr != "" and length <= _LONGEST_SHORT)


_VRS: dict[int, str] = {}


def _looked_up(tag: int) -> str:
    return dictionary_VR(tag) if not (tag >> 16) % 2 and dictionary_has_tag(tag) else ""


def _strings(dataset: Dataset, tag: int) -> list[str]:
    """The values as text, without padding; plain ASCII is not decoded by the library."""
    element = dataset.get_item(tag)
    raw = element.value
    if isinstance(element, RawDataElement) and isinstance(raw, bytes) and raw.isascii() and b"\x1b" not in raw:
        return [part.strip("\0 ") for part in raw.decode("ascii").split("\\")] if raw else []
    value = dataset[tag].value
    if value is None:
        return []
    if isinstance(value, bytes):
        return [value.decode("latin-1")]
    many = value if isinstance(value, list | tuple) or (hasattr(value, "append") and not isinstance(value, str)) else [value]
    return [str(one).strip("\0 ") for one in many]


def _put_text(dataset: Dataset, tag: int, values: list[str], *, unchanged: bool) -> None:
    """Write values back; what did not change and is plain ASCII stays as it is, byte for byte."""
    element = dataset.get_item(tag)
    if unchanged and (not isinstance(element, RawDataElement) or bytes(element.value or b"").isascii()):
        return
    vr = _defined(tag) or _vr(element)
    dataset[tag] = DataElement(tag, vr, values[0] if len(values) == 1 else values or None)


def _remove(dataset: Dataset, tag: int) -> None:
    del dataset[tag]


def _empty(dataset: Dataset, tag: int) -> None:
    vr = _defined(tag) or "LO"
    dataset[tag] = DataElement(tag, vr, Sequence() if vr == "SQ" else None)


def _replace(dataset: Dataset, tag: int) -> None:
    """A dummy of the VR's form; of a sequence one item that says nothing."""
    vr = _defined(tag)
    if vr != "SQ":
        dataset[tag] = DataElement(tag, vr, DUMMIES[vr])
        return
    dataset[tag] = DataElement(tag, "SQ", Sequence(_dummies(tag)))


def _dummies(tag: int) -> list[Dataset]:
    """What stands in the place of a sequence's items: one that says nothing and has what PS3.3 requires of it.

    No item where there is none that says nothing: a graphic annotation would be drawn on the image.
    """
    item = Dataset()
    if tag == _CONTENT:  # PS3.3 C.17.3
        item.RelationshipType, item.ValueType, item.TextValue = "CONTAINS", "TEXT", DUMMIES["UT"]
        item.ConceptNameCodeSequence = Sequence([coded("121106", "DCM", "Comment")])
    elif tag == _OBSERVER:  # C.17.2
        item.VerifyingObserverName, item.VerifyingOrganization = DUMMIES["PN"], DUMMIES["LO"]
        item.VerificationDateTime, item.VerifyingObserverIdentificationCodeSequence = DUMMIES["DT"], Sequence()
    elif tag == _FLOW:  # C.7.6.25
        item.FlowIdentifier = DUMMIES["OB"]
    elif tag == _WAVEFORM:  # C.10.10
        item.UnformattedTextValue, item.ReferencedWaveformChannels = DUMMIES["ST"], [1, 0]
    elif str(dictionary_keyword(tag)).endswith(_PERSON_CODE):
        item = coded("REMOVED", "99BEDSIDE", "Removed")
    return [item] if len(item) else []


_BY_FORM: dict[str, Callable[[Dataset, int], None]] = {"removed": _remove, "emptied": _empty, "replaced": _replace}


def _keep_private(dataset: Dataset, tag: int, known: Known) -> bool:
    """Keep a private element of the safe list whose value is of its VR's form, with its creator; False for every other."""
    group, number = tag >> 16, tag & 0xFFFF
    block = number >> 8 if number > 0xFF else number
    creator_tag = group << 16 | block
    creator = " ".join(_strings(dataset, creator_tag)) if creator_tag in dataset else ""
    if number <= 0xFF:
        return any(safe_vr(creator, other) for other in map(int, dataset.keys()) if other >> 8 == group << 8 | block)
    vr = safe_vr(creator, tag)
    if not vr or vr in BINARY_NUMBERS:
        return bool(vr) and _vr(dataset.get_item(tag)) == vr
    number_form = vr in TEXT_NUMBERS
    sound = _IS_NUMBER if number_form else _SAFE_CODE
    return all(sound.match(value) and not known.in_text(value, number=number_form) for value in _strings(dataset, tag))
