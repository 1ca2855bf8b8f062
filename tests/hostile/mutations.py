"""Sound files of every kind, spoilt at random from a seed, and let through the door in batches."""

import functools
import gzip
import tempfile
import time
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bedside.core.errors import BedsideError
from bedside.formats.dicom import assemble, look
from bedside.formats.nifti import read_nifti

from . import corpus_nifti
from .corpus_streams import EIGHT_BITS, NAMES, framed, stream
from .dicom_bytes import BIG, DEFLATED, EXPLICIT, IMPLICIT, ct_slice, fragments

BOUNDARIES = tuple(
    value.to_bytes(size, "little")
    for size in (1, 2, 4)
    for value in (0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
    if value < 2 ** (8 * size)
)
PLAIN = {"explicit": EXPLICIT, "implicit": IMPLICIT, "big endian": BIG}
KINDS = (*PLAIN, "deflated", *NAMES.values(), "enhanced", "NIfTI", "NIfTI-2 packed", "packed NIfTI")


@dataclass(frozen=True)
class Batch:
    """Mutations `first` to `first + count` of one kind of file."""

    kind: str
    first: int
    count: int


@dataclass(frozen=True)
class Tally:
    """What came of a batch: how often each code (or "accepted"), what must not be, and the slowest and largest."""

    codes: Counter
    faults: tuple[str, ...]
    seconds: float
    memory_mb: float


@functools.cache
def sound(kind):
    """Three sound files (bytes) of one kind; one for NIfTI. The second is the one to be spoilt."""
    if kind in PLAIN:
        return [ct_slice(number, syntax=PLAIN[kind]).bytes() for number in range(3)]
    if kind == "deflated":
        return [ct_slice(number, syntax=DEFLATED).bytes() for number in range(3)]
    if kind == "enhanced":
        return [_enhanced()]
    if "NIfTI" in kind:
        whole = next(one for one in corpus_nifti.second_version()).files[0][1] if "-2" in kind else corpus_nifti.image()
        return [gzip.compress(whole, mtime=0) if "packed" in kind else whole]
    syntax = next(syntax for syntax, name in NAMES.items() if name == kind)
    bits = 8 if syntax in EIGHT_BITS else 16
    return [framed(number, syntax, fragments(stream(syntax, number)), bits) for number in range(3)]


def _enhanced():
    from bedside.core.volume import Volume
    from bedside.formats.dicom_write import SeriesIdentity, planes_of
    from bedside.formats.dicom_write_frames import write_frames

    volume = Volume.of(np.arange(4 * 3 * 3, dtype=np.int16).reshape(4, 3, 3), np.diag([1.0, 1.5, 2.0, 1.0]))
    with tempfile.TemporaryDirectory() as folder:
        write_frames(Path(folder) / "series", planes_of(volume), identity=SeriesIdentity.of("P1", "1"))
        (path,) = (path for path in Path(folder).rglob("*") if path.is_file())
        return path.read_bytes()


def mutated(kind, number):
    """The spoilt file of a number: the same on every machine."""
    rng = np.random.default_rng([KINDS.index(kind), number])
    whole = sound(kind)[-1 if len(sound(kind)) == 1 else 1]
    if kind == "deflated" and number % 2:
        start = len(ct_slice(1, syntax=DEFLATED).head())
        packer = zlib.compressobj(1, zlib.DEFLATED, -15)
        return whole[:start] + packer.compress(spoilt(ct_slice(1).body(), rng)) + packer.flush()
    if "packed" in kind and number % 8:
        return gzip.compress(spoilt(gzip.decompress(whole), rng), 1, mtime=0)
    return spoilt(whole, rng)


def spoilt(data, rng):
    """One to four changes: bits, bytes, boundary numbers, swaps, and in every second file also cuts, holes and insertions.

    Half of the files are changed in their last two thirds only, where the pixels are and what comes before them is sound.
    """
    out = bytearray(data)
    kinds = int(rng.choice([6, 9]))
    first = len(out) // 3 if rng.random() < 0.5 else 0
    for _ in range(int(rng.integers(1, 5))):
        if len(out) <= first:
            break
        at = int(rng.integers(first, len(out)))
        size = int(rng.integers(1, 17))
        match int(rng.integers(kinds)):
            case 0 | 1:
                out[at] ^= 1 << int(rng.integers(8))
            case 2:
                out[at] = int(rng.integers(256))
            case 3 | 4:
                value = BOUNDARIES[int(rng.integers(len(BOUNDARIES)))][: len(out) - at]
                out[at : at + len(value)] = value
            case 5:
                other = int(rng.integers(first, len(out)))
                one, two = out[at : at + size], out[other : other + size]
                if len(one) == len(two):
                    out[at : at + size], out[other : other + size] = two, one
            case 6:
                out[at:] = out[at + size :] if rng.random() < 0.7 else b""
            case 7 | 8:
                out[at:at] = out[at : at + size] if rng.random() < 0.5 else rng.bytes(size)
    return bytes(out)


def pass_batch(folder, batch):
    """Let a batch of mutations through the door, in a folder of its own."""
    codes, faults, slowest = Counter(), [], 0.0
    suffix = {"packed": ".nii.gz", "NIfTI": ".nii"}.get(next((w for w in ("packed", "NIfTI") if w in batch.kind), ""), ".dcm")
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / f"m{suffix}"
        siblings = []
        if len(sound(batch.kind)) == 3:
            for name, data in (("a", sound(batch.kind)[0]), ("z", sound(batch.kind)[2])):
                (Path(place) / name).write_bytes(data)
                siblings.append(look(Path(place) / name))
        Path("/proc/self/clear_refs").write_text("5")
        before = _peak_mb()
        for number in range(batch.first, batch.first + batch.count):
            path.write_bytes(mutated(batch.kind, number))
            began = time.process_time()
            outcome = _outcome(path, siblings)
            slowest = max(slowest, time.process_time() - began)
            codes[outcome] += 1
            if outcome.startswith("!"):
                faults.append(f"{batch.kind} {number}: {outcome}")
        written = {one.name for one in Path(place).iterdir()} - {path.name, "a", "z"}
        faults += [f"{batch.kind}: wrote {name}" for name in written]
    return Tally(codes, tuple(faults), slowest, _peak_mb() - before)


def _outcome(path, siblings):
    """Code of the refusal, or "accepted"; what begins with "!" must not be. Any other exception than a refusal is left alone."""
    try:
        if not path.name.endswith(".dcm"):
            volume = read_nifti(path).volume
            return "accepted" if volume.array.shape == volume.shape else "! another shape"
        reading = assemble([*siblings[:1], look(path), *siblings[1:]])
        files = [one.files for one in (*reading.found, *reading.refused)] + [reading.duplicates]
        if sum(map(len, files)) != 1 + len(siblings) or len({name for names in files for name in names}) != 1 + len(siblings):
            return "! files unaccounted for"
        for found in reading.found:
            if found.volume.array.shape != found.volume.shape:
                return "! another shape"
        return next((refused.code for refused in reading.refused if path in refused.files), "accepted")
    except BedsideError as error:
        return error.code if error.exit_code in {3, 7} else f"! exit {error.exit_code}"


def _peak_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def batches(total, size=125):
    """`total` mutations, in turn of every kind."""
    each = -(-total // len(KINDS))
    for first in range(0, each, size):
        for kind in KINDS:
            yield Batch(kind, first, min(size, each - first))
