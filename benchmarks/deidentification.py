"""The identity figures of the README: seeds that are left, ten kinds of checks against a key, files per second; beside a peer.

python benchmarks/deidentification.py --patients 14 --results benchmarks/results/deidentification.md

Everything is invented. Seeds: an export in which every attribute of Table E.1-1 holds a value that occurs nowhere else, twice per
file (at the root, and two levels down in a sequence that the table does not name), and private elements, overlays, file meta
information, preambles, names of files and folders, NIfTI headers and a clinical table as well; it goes through `bedside ingest`,
DVC and MLflow, and through `bedside deidentify`, errors included. Every byte written or said is searched; received bytes that
wait in quarantine as they came are not. Checks: see `bedside.formats.identity_answers`.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import pydicom

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.ingest.seeded_study import seeded_study

from bedside.core.deidentification import Deidentification
from bedside.core.digest import digest_bytes
from bedside.core.errors import InputRejected
from bedside.core.identity import KEY_VARIABLE, Identity
from bedside.data.identities import Search
from bedside.formats.burned_in import examine
from bedside.formats.deidentify import Deidentifier
from bedside.formats.dicom_elements import Elements, walk
from bedside.formats.identity_answers import KINDS, Answer, Score, score
from bedside.formats.identity_received import write_export
from bedside.formats.identity_studies import OPTIONS, write_studies

KEY = "a secret of this benchmark, 32 letters"
_SEED = re.compile(rb"ZQ\d{4}|3680043\.10\.999\.\d+|(?<!\d)18731231|(?<!\d)7319\d{4}|097Y")
Engine = Callable[[bytes], bytes | None]


def bedside_engine(options: Deidentification) -> Engine:
    """This project's engine: None where the file is refused."""
    engine = Deidentifier(Identity("pseudonym", KEY.encode()), options)

    def run(data: bytes) -> bytes | None:
        elements = Elements()
        try:
            walk(data, elements)
            examined = examine(data, elements, options)
            if examined.refusal is not None:
                return None
            return engine.file(examined.data, pixels_cleaned=bool(examined.masked), burned_in=examined.burned_in).data
        except InputRejected:
            return None

    return run


def peer_engine(table: str) -> Engine:
    """dicom-anonymizer with one of its tables, as its command line runs it."""
    from dicomanonymizer import simpledicomanonymizer as peer

    rules = peer.initialize_actions_2024b() if table == "2024b" else peer.initialize_actions()

    def run(data: bytes) -> bytes | None:
        with tempfile.TemporaryDirectory() as folder:
            received, written = Path(folder, "in.dcm"), Path(folder, "out.dcm")
            received.write_bytes(data)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                peer.anonymize_dicom_file(str(received), str(written), rules)
            return written.read_bytes()

    return run


def seeds_in(data: bytes) -> int:
    """How many different seeds stand in the bytes of one file."""
    return len(set(_SEED.findall(data)))


def seeds_left(engine: Engine, received: bytes) -> str:
    """How many are left in what the engine makes of a file, of how many."""
    data = engine(received)
    return "refused" if data is None else f"{seeds_in(data)} of {seeds_in(received)}"


def without_nested(received: bytes) -> bytes:
    """The same file without the copy of all seeds two levels down."""
    data = pydicom.dcmread(BytesIO(received))
    del data.AnatomicRegionSequence
    stream = BytesIO()
    data.save_as(stream)
    return stream.getvalue()


def checked(engine: Engine, answers: tuple[Answer, ...], out: Path) -> tuple[Score, float]:
    """The ten kinds, and files per second on one core."""
    written: dict[Path, Path | None] = {}
    seconds = 0.0
    for number, answer in enumerate(answers):
        received = answer.path.read_bytes()
        start = time.process_time()
        data = engine(received)
        seconds += time.process_time() - start
        if data is not None:
            written[answer.path] = out / f"{number}.dcm"
            (out / f"{number}.dcm").write_bytes(data)
    return score(answers, written), len(answers) / seconds


def pipeline(folder: Path) -> tuple[int, Search, list[str]]:
    """The seeded export through the commands, with DVC and MLflow, and errors forced at each stage."""
    root = folder / "received"
    export = write_export(root, patients=4)
    (folder / "study.json").write_text(json.dumps(seeded_study("seeds")))
    (folder / "full.json").write_text(json.dumps(seeded_study("full")))
    image = next((root / "images").rglob("*.dcm"))
    commands = [
        ("ingest", "study.json", "--from", str(root)),
        ("ingest", "study.json", "--from", str(root), "--json"),
        ("deidentify", "study.json", "--from", str(root), "--to", "out", "--json"),
        ("deidentify", "study.json", "--from", str(root), "--what-if"),
        ("datasets", "study.json"),
        ("verify", "study.json"),
        ("ingest", "study.json", "--from", str(root), "--set", "contract.modality=MR"),
        ("ingest", "study.json", "--from", str(image)),
        ("ingest", "study.json", "--from", str(root), "--set", "source.clinical=nothing.csv"),
        ("deidentify", "study.json", "--from", str(image), "--to", "out"),
        ("train", "study.json", "--set", "train.minutes=null", "--set", "train.steps=2"),
    ]
    search = Search()
    ends: list[str] = []
    ends += [f"`{words[0]}` {run(words, folder, search)}" for words in commands]
    for step in ("ingest", "deidentify"):
        words = (step, "full.json", "--from", str(root), *(("--to", "full-out") if step == "deidentify" else ()))
        ends.append(f"`{step}` on a full disk {run(words, folder, search, file_kilobytes=4)}")
    for name in ("seeds", "full", "out", "full-out"):
        home = folder / name
        if home.is_dir():
            kept = [path for path in home.glob("quarantine/*") if path.name == digest_bytes(path.read_bytes())]
            search.folder(home, besides=frozenset(path.name for path in kept))
    return export.seeds, search, ends


def run(words: tuple[str, ...], folder: Path, search: Search, *, file_kilobytes: int = 0) -> int:
    """One command in a process of its own; what it says is searched."""
    limit = f"ulimit -f {file_kilobytes * 2}; " if file_kilobytes else ""
    command = ["sh", "-c", f'{limit}exec "$@"', "sh", sys.executable, "-m", "bedside", *words]
    environment = {**os.environ, KEY_VARIABLE: KEY, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False, timeout=600)
    search.bytes(done.stdout + done.stderr, f"what bedside {words[0]} said")
    return done.returncode


def report(folder: Path, patients: int) -> str:
    """The whole measurement as one page."""
    answers = write_studies(folder / "studies", patients=patients)
    write_export(folder / "seeded", patients=1, besides="")
    deep = next((folder / "seeded" / "images").rglob("*.dcm")).read_bytes()
    flat = without_nested(deep)
    everything = Deidentification(dates="remove", patient_characteristics=False)
    peer = f"dicom-anonymizer {version('dicom-anonymizer')}"
    engines = {
        f"bedside {version('bedside')}": (bedside_engine(everything), bedside_engine(OPTIONS)),
        f"{peer} (2023)": (peer_engine("2023"),) * 2,
        f"{peer} (2024b)": (peer_engine("2024b"),) * 2,
    }
    rows, results = [], {}
    for name, (plain, asked) in engines.items():
        out = folder / name.replace(" ", "-")
        out.mkdir()
        results[name], speed = checked(asked, answers, out)
        made = results[name]
        share = f"{made.passed.total()} of {made.made.total()} ({100 * made.share:.2f} %)"
        rows.append(f"| {name} | {seeds_left(plain, flat)} | {seeds_left(plain, deep)} | {share} | {speed:.0f} |")
    seeds, search, ends = pipeline(folder)
    return _page((patients, len(answers)), rows, results, (seeds, search, ends))


def _page(count: tuple[int, int], rows: list[str], results: dict[str, Score], piped: tuple[int, Search, list[str]]) -> str:
    (patients, files), (seeds, search, ends) = count, piped
    body = " | ".join
    kinds = [f"| {kind} | {body(f'{one.passed[kind]} of {one.made[kind]}' for one in results.values())} |" for kind in KINDS]
    ours = next(iter(results.values()))
    megabytes = search.searched_bytes / 1e6
    return f"""# De-identification

`python benchmarks/deidentification.py --patients {patients}`: CPython {platform.python_version()}, one core of
a shared machine (quote ratios of speeds); {files} files of {patients} invented patients in seven kinds of objects.

| engine | seeds left in one slice | with a copy two levels down | checks passed | files per second and core |
|---|---|---|---|---|
{chr(10).join(rows)}

Checks by kind. The peer has no masks, keyed pseudonyms, shifted dates or list of harmless words, and lets encapsulated documents
through, so the kinds that ask for those count against it.

| kind | {body(results)} |
|---|{"---|" * len(results)}
{chr(10).join(kinds)}

Failed by bedside: {dict(ours.failures) or "none"}.

Whole pipeline: {seeds} seeds in; {len(search.hits)} found in {search.searched} pieces ({megabytes:.1f} MB) that
were written or said. Searched: names, bytes, DVC, MLflow, ledger, indexes, standard output and error; as text, UTF-16, backwards,
hexadecimal and base64. Not searched: received bytes that wait in quarantine as they came, by design.
Commands and exit codes: {", ".join(ends)}.
Found: {sorted({(hit.where, hit.what) for hit in search.hits})[:20] or "nothing"}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=14)
    parser.add_argument("--results", type=Path)
    given = parser.parse_args()
    os.environ[KEY_VARIABLE] = KEY
    with tempfile.TemporaryDirectory() as folder:
        page = report(Path(folder), given.patients)
    print(page)
    if given.results:
        given.results.write_text(page)


if __name__ == "__main__":
    main()
