"""Which rule says what happens to an attribute. Each rule is one function and one sentence; the first that answers decides."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from pydicom.datadict import DicomDictionary, dictionary_has_tag, dictionary_keyword, dictionary_VR

from bedside.core.deidentification import Deidentification
from bedside.formats.deidentify_table import Row, resolved, table

PATIENT_NAME, PATIENT_ID, ISSUER = 0x00100010, 0x00100020, 0x00100021
CHARACTER_SET = 0x00080005
MARKS = frozenset({0x00120062, 0x00120063, 0x00120064, 0x00280303})
_CLASS_UIDS = frozenset(
    {0x00020002, 0x00020010, 0x00080016, 0x0008001A, 0x0008001B, 0x00080062, 0x0008010C, 0x0008010D, 0x00080117, 0x00080118}
    | {0x0008115A, 0x00081150, 0x00041510, 0x00041512, 0x00083002, 0x0018990C, 0x00420013, 0x00080121}
)
_PERSON_GROUPS = frozenset({0x0000, 0x0004, 0x0010, 0x0012, 0x0032, 0x0038, 0x4008})
_HARMLESS = frozenset(
    {
        0x0032000A,
        0x0032000C,
        0x00321064,
        0x00102201,
        0x00102202,
        0x00102210,
        0x00101021,
        0x00101022,
        0x00120062,
        0x00120063,
        0x00120064,
    }
)
_FREE_TEXT = frozenset({"AE", "LT", "ST", "UC", "UR", "UT"})
_CODE_TEXT = frozenset({0x00080119, 0x00080120})
_IN_CODES = frozenset({0x00080100, 0x00080102, 0x00080104})
"""CodeValue, CodingSchemeDesignator, CodeMeaning: required in every item of a code sequence (PS3.3 table 8.8-1a)."""
_SPEAKING = ("Address", "Comment", "Comments", "Notes", "SerialNumber", "Telephone", "Numbers")
_SHORT_TEXT = frozenset({"CS", "LO", "SH"})
_NUMBERS = frozenset({"AS", "DS", "IS"})
_BINARY = frozenset({"AT", "FD", "FL", "OB", "OD", "OF", "OL", "OV", "OW", "SL", "SS", "SV", "UL", "US", "UV"})
_DATES = frozenset({"DA", "DT", "TM"})
_BASE = {"D": "replaced", "Z": "emptied", "X": "removed", "U": "mapped"}


@dataclass(frozen=True)
class Attribute:
    """What a decision depends on; never the value.

    Attributes:
        tag: of the attribute.
        vr: its VR in the file; the dictionary's in implicit VR.
        defined: its VR in the dictionary of the standard, "" when it is not there.
        classic: whether the object is a single-frame image whose attributes' types are known.
    """

    tag: int
    vr: str
    defined: str
    classic: bool

    @property
    def row(self) -> Row | None:
        """Its row in Table E.1-1."""
        return table().row(self.tag)


@dataclass(frozen=True)
class Decision:
    """What is to be done.

    Attributes:
        what: kept, entered (a sequence), removed, emptied, replaced, mapped, shifted, cleaned, capped, checked, pseudonym,
            marked (written by this engine) or private.
        otherwise: the same for a value that is not of its VR's form.
        because: the rule's name.
    """

    what: str
    otherwise: str
    because: str


@dataclass(frozen=True)
class Rule:
    """One rule: what it is called, what it says it does, and how it decides (None: not my business)."""

    name: str
    says: str
    decide: Callable[[Attribute, Deidentification], tuple[str, str] | None]


def _private(one: Attribute, options: Deidentification) -> tuple[str, str] | None:
    if (one.tag >> 16) % 2 == 0:
        return None
    return ("private", "removed") if options.safe_private else ("removed", "removed")


def _graphics(one: Attribute, _options: Deidentification) -> tuple[str, str] | None:
    return ("removed", "removed") if one.tag >> 24 in {0x50, 0x60} else None


def _unknown(one: Attribute, _options: Deidentification) -> tuple[str, str] | None:
    strange = not one.defined or one.vr == "UN" or (one.vr == "SQ") != (one.defined == "SQ")
    hidden = one.vr in _BINARY and one.defined not in _BINARY and " or " not in one.defined
    return ("removed", "removed") if strange or hidden else None


def _patient(one: Attribute, _options: Deidentification) -> tuple[str, str] | None:
    return ("pseudonym", "pseudonym") if one.tag in {PATIENT_NAME, PATIENT_ID} else None


def _marks(one: Attribute, _options: Deidentification) -> tuple[str, str] | None:
    return ("marked", "marked") if one.tag in MARKS or one.tag == CHARACTER_SET else None


def _base(one: Attribute) -> str:
    row = one.row
    return _BASE[resolved(row.action, one.tag, classic=one.classic)] if row else "removed"


def _column(one: Attribute, letter: str) -> bool:
    return one.row is not None and letter in one.row.columns


def _device(one: Attribute, options: Deidentification) -> tuple[str, str] | None:
    if not options.device or _column(one, "t"):
        return None
    if _column(one, "e"):
        return "cleaned", _base(one)
    return ("checked", _base(one)) if _column(one, "d") else None


def _institution(one: Attribute, options: Deidentification) -> tuple[str, str] | None:
    return ("checked", _base(one)) if options.institution and _column(one, "i") else None


def _characteristics(one: Attribute, options: Deidentification) -> tuple[str, str] | None:
    if not options.patient_characteristics or not (_column(one, "p") or _column(one, "q")):
        return None
    if one.defined == "AS":
        return "capped", _base(one)
    return ("cleaned" if _column(one, "q") else "checked"), _base(one)


def _dates(one: Attribute, options: Deidentification) -> tuple[str, str] | None:
    listed = _column(one, "t")
    if not listed and (one.row is not None or one.defined not in _DATES):
        return None
    base = _base(one)
    if options.dates == "keep":
        return "checked", base
    if options.dates == "shift" and one.defined == "TM":
        return "checked", base
    if options.dates == "remove" or one.defined not in _DATES:
        return base, base
    return "shifted", base


def _descriptors(one: Attribute, options: Deidentification) -> tuple[str, str] | None:
    text = one.defined in {"LO", "LT", "SH", "ST", "UT"}
    return ("cleaned", _base(one)) if options.descriptors and text and _column(one, "c") else None


def _profile(one: Attribute, _options: Deidentification) -> tuple[str, str] | None:
    if one.row is None:
        return None
    if resolved(one.row.action, one.tag, classic=one.classic) == "U" and one.defined == "SQ":
        return "entered", "entered"
    if _base(one) == "replaced" and one.defined == "UI":
        return "mapped", "removed"
    return _base(one), "removed"


def _uids(one: Attribute, _options: Deidentification) -> tuple[str, str] | None:
    if "UI" not in {one.vr, one.defined}:
        return None
    return ("class", "removed") if one.tag in _CLASS_UIDS else ("mapped", "removed")


def _persons(one: Attribute, _options: Deidentification) -> tuple[str, str] | None:
    if one.tag >> 16 in _PERSON_GROUPS and one.tag not in _HARMLESS:
        return "removed", "removed"
    return ("emptied", "emptied") if "PN" in {one.vr, one.defined} else None


def _free_text(one: Attribute, _options: Deidentification) -> tuple[str, str] | None:
    if one.tag in _CODE_TEXT:
        return "checked", "removed"
    speaks = one.defined in _SHORT_TEXT and dictionary_keyword(one.tag).endswith(_SPEAKING)
    if not speaks and not {one.vr, one.defined} & _FREE_TEXT:
        return None
    what = "removed" if one.classic or not (speaks or one.defined in _FREE_TEXT) else "replaced"
    return what, what


def _rest(one: Attribute, _options: Deidentification) -> tuple[str, str] | None:
    if one.vr == "SQ":
        return "entered", "entered"
    if one.defined in {"LO", "SH"} and (one.tag in _IN_CODES or not one.classic):
        return "checked", "replaced"
    if one.vr in _SHORT_TEXT or one.defined in _SHORT_TEXT:
        return "checked", "emptied"
    return ("number", "emptied") if one.vr in _NUMBERS or one.defined in _NUMBERS else ("kept", "kept")


RULES = (
    Rule(
        "private",
        "Private elements are removed; with the option safe_private the numbers and codes that Table E.3.10-1 names stay.",
        _private,
    ),
    Rule("graphics", "Curves (groups 50xx) and overlays (groups 60xx) are removed.", _graphics),
    Rule(
        "unknown",
        "Elements that the standard does not define, or that hold another kind of value than it says, are removed.",
        _unknown,
    ),
    Rule("patient", "PatientID becomes a pseudonym, a keyed hash of the number and its issuer; so does PatientName.", _patient),
    Rule("marks", "The marks of de-identification are written anew, and text is written in UTF-8 (ISO_IR 192).", _marks),
    Rule(
        "device",
        "With the option device, what names the device is kept, its network names keep words of a fixed vocabulary, and its dates"
        " are treated as all dates.",
        _device,
    ),
    Rule("institution", "With the option institution, what names the institution is kept.", _institution),
    Rule(
        "characteristics",
        "With the option patient_characteristics, sex, age, size, weight and the like are kept; 90 years and more become 090Y,"
        " and sex and smoking only stay as the standard's own words.",
        _characteristics,
    ),
    Rule(
        "dates",
        "With dates: shift, all dates are moved by the patient's secret number of days; remove does as the profile; keep keeps.",
        _dates,
    ),
    Rule("descriptors", "With the option descriptors, descriptions keep the words of a fixed vocabulary.", _descriptors),
    Rule(
        "profile", "All other attributes of Table E.1-1 are removed, emptied, replaced by a dummy or mapped as it says.", _profile
    ),
    Rule(
        "uids", "UIDs of instances that the table does not name are mapped too; UIDs of classes and of the standard stay.", _uids
    ),
    Rule(
        "persons",
        "What the table leaves of the groups of patient, visit, trial, request and result is removed; names are emptied.",
        _persons,
    ),
    Rule(
        "free text",
        "Free text (AE, LT, ST, UC, UR, UT), comments, addresses and serial numbers that the table does not name are removed; in"
        " objects other than single-frame images, where some must not be missing, a dummy stands in their place.",
        _free_text,
    ),
    Rule(
        "rest",
        "Everything else stays; a short text with a name, an identifier or a date of birth of the same file is emptied, so is a"
        " code or a number that is not of its form. In coded entries, and in objects other than single-frame images, where some"
        " must not be empty, a dummy stands in its place.",
        _rest,
    ),
)
"""In the order in which they are asked. The list in docs/de-identification.md is this one."""


@lru_cache(maxsize=1)
def sequence_tags() -> frozenset[int]:
    """The tags of all sequences that the standard defines."""
    return frozenset(tag for tag, (vr, *_) in DicomDictionary.items() if vr == "SQ")


@lru_cache(maxsize=8192)
def decide(tag: int, vr: str, *, classic: bool, options: Deidentification) -> Decision:
    """Ask the rules. `vr` is "" where the file does not write it."""
    defined = dictionary_VR(tag) if (tag >> 16) % 2 == 0 and dictionary_has_tag(tag) else ""
    one = Attribute(tag, vr or defined, defined, classic)
    for rule in RULES:
        found = rule.decide(one, options)
        if found is not None:
            return Decision(*found, rule.name)
    raise AssertionError("the last rule answers for everything")


def keyword(tag: int) -> str:
    """What the standard calls an attribute; for others no more than its kind."""
    if (tag >> 16) % 2:
        return "private"
    return dictionary_keyword(tag) if dictionary_has_tag(tag) else "repeating" if tag >> 24 in {0x50, 0x60} else "unknown"
