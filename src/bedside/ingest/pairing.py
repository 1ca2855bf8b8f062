"""Which mask belongs to which image, and what a case is called."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bedside.formats.found import Found, Reading, Refused
from bedside.formats.nifti import nifti_stem
from bedside.ingest.copies import grids_of, told
from bedside.ingest.discover import Discovery
from bedside.ingest.survey import Survey


@dataclass(frozen=True)
class Pair:
    """One image, and its mask where the study has masks.

    Attributes:
        key: what the case is named after: the image's name without suffix, or the folder of the only series in it; of other
            series "series/" and the SeriesInstanceUID; "#" and a number where there are several. Comes from outside.
        patient: stands for the patient where the image names none: the folder, so that what lies together stays together.
        image: not decoded.
        mask: not decoded, or why it is refused.
        files: those that this pair accounts for.
    """

    key: str = field(repr=False)
    patient: str = field(repr=False)
    image: Found
    mask: Found | Refused | None
    files: Sequence[Path] = field(repr=False)


@dataclass(frozen=True)
class _Named:
    """An image under the names that a mask may share.

    Attributes:
        folder: name of the NIfTI file or of the series' folder, by which several images may go; "" for the top.
        key: as in `Pair`.
    """

    folder: str
    key: str
    image: Found


def pairs(discovery: Discovery, survey: Survey, reading: Reading, *, masks_needed: bool) -> Iterator[Pair | Refused]:
    """Match images and masks: by the series' name first, then by the name of the file or folder.

    Args:
        discovery: the names.
        survey: the NIfTI files.
        reading: the DICOM series of the whole folder.
        masks_needed: an image without a mask is refused.

    Yields:
        Every accepted file of images, and every mask, in one pair or refusal, in an order that depends on the names only.
    """
    images = _images(discovery, survey, reading)
    masks = {stem: tuple(_mask(survey.niftis[path]) for path in paths) for stem, paths in discovery.masks.items()}
    of_folder: dict[str, list[_Named]] = defaultdict(list)
    for named in images:
        by_name = masks.pop(named.image.name, ()) if named.image.name else ()
        if len(by_name) == 1:
            yield _pair(named, by_name[0])
        elif by_name:
            yield _ambiguous([named], by_name)
        else:
            of_folder[named.folder].append(named)
    copies = _copies(images, discovery, survey, reading)
    for folder in sorted(of_folder.keys() | masks.keys()):
        if folder in of_folder:
            yield from _matched(of_folder[folder], masks.get(folder, ()), masks_needed=masks_needed)
        else:
            yield from _without_image(masks[folder], copies.get(folder))


def _images(discovery: Discovery, survey: Survey, reading: Reading) -> list[_Named]:
    """Every image with its names, sorted."""
    volumes: dict[str, list[Found]] = defaultdict(list)
    for path, one in survey.niftis.items():
        name = discovery.images.name_of(path)
        if name is not None and isinstance(one, Found):
            volumes[nifti_stem(name) or name].append(one)
    folders = [sorted(_folders(one.files, survey)) for one in reading.found]
    crowd = Counter(folder for series in folders for folder in series) + Counter({s: len(v) for s, v in volumes.items()})
    grids = grids_of(reading.found) if volumes else {}
    found = [
        named
        for stem, ones in volumes.items()
        for one in ones
        for named in _niftis(stem, told(one.volumes, grids), alone=crowd[stem] == 1)
    ]
    for one, series in zip(reading.found, folders, strict=True):
        alone = len(series) == 1 and series[0] != "" and crowd[series[0]] == 1
        found.append(_Named(series[0], series[0] if alone else f"series/{one.name or one.source}", one))
    return sorted(found, key=lambda named: (named.folder, named.key, named.image.source))


def _niftis(stem: str, volumes: list[Found], *, alone: bool) -> Iterator[_Named]:
    """The image of a NIfTI file; where it holds several, each under the name's number, as those of a DICOM series are."""
    key = stem if alone else f"{stem}/{volumes[0].source}"
    for number, volume in enumerate(volumes, start=1):
        name = f"{key}#{number}"
        yield _Named(stem, name, replace(volume, name=name)) if len(volumes) > 1 else _Named(stem, key, volume)


def _mask(one: Found | Refused) -> Found | Refused:
    if isinstance(one, Refused) or not one.later:
        return one
    sentence = (
        "The mask holds several volumes in time; write one file for each, named NAME#1, NAME#2, ... after the volumes of its"
        " image."
    )
    return Refused(one.files, "LABEL_4D", sentence)


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _folders(files: Sequence[Path], survey: Survey) -> set[str]:
    """The folders in which some images lie."""
    return {_folder(survey.files.name(number)) for number in survey.files.all_of(files).numbers}


def _matched(images: list[_Named], masks: tuple[Found | Refused, ...], *, masks_needed: bool) -> Iterator[Pair | Refused]:
    """Images and masks of one name."""
    if masks_needed and not masks:
        files = tuple(path for named in images for path in named.image.files)
        yield Refused(files, "LABEL_MISSING", "There is no mask of the image's name, and the study needs one.")
    elif masks_needed and (len(images) > 1 or len(masks) > 1):
        yield _ambiguous(images, masks)
    else:
        for named in images:
            yield _pair(named, masks[0] if masks else None)


def _without_image(masks: tuple[Found | Refused, ...], copy: _Named | None) -> Iterator[Pair | Refused]:
    """Masks of a name that no accepted image has, unless its folder repeats the files of one."""
    if copy is not None and len(masks) == 1:
        yield Pair(copy.key, copy.folder or copy.key, copy.image, masks[0], masks[0].files)
        return
    for mask in masks:
        yield (
            mask
            if isinstance(mask, Refused)
            else Refused(mask.files, "LABEL_ORPHAN", "There is no accepted image of the mask's name.")
        )


def _pair(named: _Named, mask: Found | Refused | None) -> Pair:
    """One image with its mask; what is sent to a worker must be plain."""
    files: Sequence[Path] = named.image.files
    if mask is not None:
        files = (*files, *mask.files)
    image = replace(named.image, acquisition=dict(named.image.acquisition))
    return Pair(named.key, named.folder or named.key, image, mask, files)


def _ambiguous(images: list[_Named], masks: tuple[Found | Refused, ...]) -> Refused:
    files = tuple(path for named in images for path in named.image.files) + tuple(path for m in masks for path in m.files)
    sentence = (
        f"{len(images)} images and {len(masks)} masks share one name; exactly one of each is needed to know which mask"
        " belongs to which image, or masks named by the SeriesInstanceUID."
    )
    return Refused(files, "LABEL_AMBIGUOUS", sentence)


def _copies(images: list[_Named], discovery: Discovery, survey: Survey, reading: Reading) -> dict[str, _Named]:
    """Folder to the image whose files it repeats, so that the mask of the repetition can be compared with the one it has."""
    if not reading.duplicates:
        return {}
    wanted = {survey.digest(path) for path in reading.duplicates}
    owner = {digest: named for named in images for path in named.image.files if (digest := survey.digest(path)) in wanted}
    repeated: dict[str, list[_Named | None]] = defaultdict(list)
    for path in reading.duplicates:
        name = discovery.images.name_of(path)
        assert name is not None
        repeated[_folder(name)].append(owner.get(survey.digest(path)))
    return {
        folder: first
        for folder, (first, *others) in repeated.items()
        if folder and first is not None and all(other is first for other in others)
    }
