"""Whether a face could be rebuilt from a scan (H5): from what the header says of the body part, and from the field of view.

Fails closed but stays usable: a CT, MR or PET that names no body part at all counts as recognisable when its picture is large
enough for a head; one that names another part only does not. Words are looked for in English, German, French, Spanish, Dutch,
Italian and Portuguese, because BodyPartExamined is often empty and descriptions are in the language of the hospital.
"""

import re
import unicodedata
from functools import lru_cache
from typing import Literal

from bedside.formats.dicom_elements import Element, Elements
from bedside.formats.dicom_values import name, text

Face = Literal["", "recognizable", "removed"]

_VOLUMES = frozenset({"CT", "MR", "PT"})
_VOLUME_CLASSES = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{tail}" for tail in ("2", "2.1", "2.2", "4", "4.1", "4.4", "128", "128.1", "130")
)
"""Storage classes of CT, MR and PET: a file of them shows what they show, whatever word its modality is."""
_SOP_CLASS = 0x00080016
_MODALITY, _FEATURES, _METHODS, _SPACING = 0x00080060, 0x00280302, 0x00120064, 0x00280030
_REGIONS = (0x00082218, 0x00082228)
"""Anatomic Region Sequence, Primary Anatomic Structure Sequence."""
_TEXTS = (0x00180015, 0x00081030, 0x0008103E, 0x00181030, 0x00400254, 0x00321060)
"""BodyPartExamined, StudyDescription, SeriesDescription, ProtocolName, the procedure step's and the requested procedure's."""
_CLEANED_FEATURES = b"113102"
_HEAD_MM = 80.0
"""A picture smaller than this in one direction shows no whole face, not even a small child's."""

_ANYWHERE = (
    *(
        "brain",
        "skull",
        "crani",
        "cereb",
        "enceph",
        "encef",
        "neuro",
        "facial",
        "mprage",
        "mp2rage",
        "flair",
    ),
    *("headneck", "wholebody", "totalbody", "maxill", "mandib", "nasoph", "paranas", "hypophys", "pituit"),
    *(
        "kopf",
        "schadel",
        "schaedel",
        "gesicht",
        "hirn",
        "kiefer",
        "felsenbein",
        "nasenneb",
        "ganzkorper",
        "ganzkoerper",
    ),
    *("cerveau", "visage", "machoire"),
    *("cabeza", "cuello", "mandibula", "craneo"),
    *("hoofd", "schedel", "hersen", "gezicht", "kaak"),
    *("cervello", "cabeca", "pescoco"),
)
_STARTS = (
    *("head", "face", "neck", "orbit", "sinus", "dental", "dento", "teeth", "tooth", "temporal bone", "mastoid", "sella", "jaw"),
    *("larynx", "laryng", "pharyn", "tongue", "thyroid", "parotid", "salivary", "carotid", "cervic", "cerv", "cspine", "c spine"),
    *("whole body", "total body", "inner ear", "auditory", "stroke", "circle of willis", "internal audit"),
    *("hals", "auge", "ohr", "nase", "zahn", "zervik", "ganzer korper", "ganzer koerper"),
    *("tete", "crane", "cou ", "oreille", "oeil", "yeux", "rocher", "corps entier", "massif fac", "rachis cerv"),
    *("cara ", "ojo", "oido", "cuerpo enter", "cuerpo compl", "senos par", "silla turca"),
    *("nek ", "oog ", "oor ", "hele lichaam", "totaal lichaam", "gehele lichaam"),
    *("testa ", "collo ", "viso ", "corpo inter"),
)
_EXACT = (
    "nnh",
    "hws",
    "cct",
    "iac",
    "iam",
    "tmj",
    "wb",
    "ent",
    "hno",
    "orl",
    "kno",
    "ear",
    "ears",
    "eye",
    "eyes",
    "bold",
    "fmri",
)
_EXACT_SEQUENCES = ("tof", "dti", "swi", "rcbv", "bravo")
_CODES = re.compile(
    rb"T-D1[0-6]\d\d|T-A\d{4}|T-AA\d{3}|T-1[01][12]\d\d|T-D0010"  # SRT: head, neck, brain, eye, skull, whole body
    rb"|69536005|774007|89545001|12738006|45048000|89546000|38266002|113305005|81745001|371398005|2095001|122494005"
)
_HEAD = re.compile("|".join(_ANYWHERE) + "|" + rf"\b(?:{'|'.join(_STARTS)})" + "|" + rf"\b(?:{'|'.join(_EXACT)})\b")

_ELSEWHERE = re.compile(
    r"\b(?:chest|thora|torax|lung|pulmo|poumon|heart|herz|cardi|kardi|coeur|corazon|coron|breast|brust|mamm|borst|abdom|liver|leber|foie"
    r"|higado|hepat|kidney|renal|niere|pancre|pankre|spleen|milz|bowel|colon|stomach|gastr|pelvi|pelve|becken|bassin|bekken|hip\b|hips\b"
    r"|huft|hueft|hanche|cadera|heup|prostat|uter|rect|bladder|blase|ovar|knee|knie\b|genou|rodilla|ankle|sprungg|cheville|tobillo|enkel"
    r"|foot|feet|fuss|pied|voet|hand\b|hands\b|wrist|handgel|poignet|muneca|pols\b|finger|elbow|ellbog|coude\b|codo\b|elleboog|shoulder"
    r"|schulter|epaule|hombro|schouder|arm\b|humer|forearm|leg\b|legs\b|femur|femor|thigh|tibia|calf\b|extrem|lumbar|lumbal|lomba"
    r"|lspine|l spine|tspine|t spine|lws\b|bws\b|sacr|sakr|bauch|oberbauch|buik|aort|torso|rumpf|appendic)"
)


def recognizable(elements: Elements) -> bool:
    """Whether a face could be rebuilt from this file's series; such a file is not exported unless that is waived."""
    return face_of(elements) == "recognizable"


def face_of(elements: Elements) -> Face:
    """What the header says of a face: none (""), "recognizable", or "removed".

    Removed is said by RecognizableVisualFeatures (0028,0302) NO or by the method code 113102 (PS3.15 E.3.2).
    """
    sop_class = text(elements, _SOP_CLASS) or elements.sop_class
    if text(elements, _MODALITY) not in _VOLUMES and sop_class not in _VOLUME_CLASSES:
        return ""
    said = text(elements, _FEATURES).upper()
    if said == "NO" or _CLEANED_FEATURES in elements.below(_METHODS):
        return "removed"
    if said == "YES":
        return "recognizable"
    regions = [elements.below(tag) for tag in _REGIONS]
    views = [elements.shared, *elements.frames[:1]]
    regions += [elements.data[place.start : place.end] for view in views for place in _anatomy(view)]
    if any(_CODES.search(region) for region in regions):
        return "recognizable"
    words = [name(elements, tag)[:256] for tag in _TEXTS if tag in elements.table]
    words += [region[:512].decode("latin-1") for region in regions]
    part = _part(" ".join(words))
    if part == "unknown":
        return "recognizable" if _could_hold_a_head(elements) else ""
    return "recognizable" if part == "head" else ""


def _anatomy(view: dict[int, Element]) -> list[Element]:
    """Code value and meaning of a frame's anatomic region."""
    return [view[tag] for tag in (0x00080100, 0x00080104) if tag in view]


@lru_cache(maxsize=1024)
def _part(words: str) -> Literal["head", "elsewhere", "unknown"]:
    """What the words name; a head beside anything else is a head."""
    folded = unicodedata.normalize("NFKD", words.replace("ß", "ss")).lower()
    plain = "".join(letter if letter.isalnum() else " " for letter in folded if not unicodedata.combining(letter))
    plain = " ".join(plain.split()) + " "
    if _HEAD.search(plain):
        return "head"
    return "elsewhere" if _ELSEWHERE.search(plain) else "unknown"


def _could_hold_a_head(elements: Elements) -> bool:
    """Whether rows and columns both reach over a face; unknown sizes could."""
    raws = [elements.raw(_SPACING)] if _SPACING in elements.table else []
    places = [view[_SPACING] for view in (elements.shared, *elements.frames[:1]) if _SPACING in view]
    raws += [elements.data[place.start : place.end] for place in places]
    if not raws:
        return True
    try:
        spacing = [float(part) for part in raws[0].decode("ascii").strip("\0 ").split("\\")]
    except ValueError:
        return True
    order: Literal["little", "big"] = "little" if elements.order == "<" else "big"
    counts = [int.from_bytes(elements.raw(tag)[:2], order) for tag in (0x00280010, 0x00280011)]
    if len(spacing) != 2:
        return True
    return not min(count * size for count, size in zip(counts, spacing, strict=True)) < _HEAD_MM
