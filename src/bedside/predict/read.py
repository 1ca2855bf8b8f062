"""`bs.read`: one NIfTI file or one folder with one series, as a case, decoded in a limited child of this process."""

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from bedside.adapters.site import executor_of
from bedside.core.case import Case
from bedside.core.errors import InputRejected, UsageError
from bedside.core.ports import Executor
from bedside.core.site import Site
from bedside.core.volume import Volume
from bedside.formats.found import Found, Reading
from bedside.formats.limited import MODULES, limited, read_limited


def read(path: str | Path, *, keep_reformats: bool = False, executor: Executor | None = None) -> Case:
    """Read one image, its voxels included.

    A file that crashes its decoder, or takes more than 4 GB or 300 seconds, is refused; nothing it does ends this process.

    Args:
        path: a NIfTI file, a multi-frame DICOM file, or a folder in which exactly one CT or MR series is sound.
        keep_reformats: take a series of reformats or projections too, as `source.keep_reformats` of a study.
        executor: where the bytes are decoded; None: limited processes of this machine, which start for this call.

    Returns:
        A case with the role "image". Its id is the start of the received bytes' SHA-256: nothing in it comes from a header.

    Raises:
        UsageError: nothing is there, or the folder holds several series.
        InputRejected: the bytes were refused; the code names the rule.
        ResourceError: the disk for temporary files is full.
    """
    with ExitStack() as stack:
        workers = executor or stack.enter_context(executor_of(Site(), modules=MODULES))
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bedside-")))
        found = limited(_only(read_limited(Path(path), workers, keep_reformats=keep_reformats)), workers, folder)
        array = found.volume.array
    name = found.source[:16]
    volume = Volume(found.volume.affine, found.volume.shape, lambda: array)
    return Case(id=name, patient=name, volumes={"image": volume}, scanner=found.scanner)


def _only(reading: Reading) -> Found:
    """The only volume; a refused one is named."""
    if len(reading.found) > 1:
        raise UsageError(f"There are {len(reading.found)} series; give a folder with one.", code="SEVERAL_SERIES")
    if reading.found:
        return reading.found[0]
    if not reading.refused:
        raise UsageError("The folder holds no files.", code="NO_INPUT")
    worst = max(reading.refused, key=lambda refused: (refused.code.startswith("SERIES"), len(refused.files)))
    raise InputRejected(worst.sentence, code=worst.code)
