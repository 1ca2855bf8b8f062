"""Processor time of adding ten cases to a dataset, against the number of cases that are there already.

    python benchmarks/added_batch.py [--cases 100 --cases 1600 --cases 5000] [--results FILE]

The version that is added to is written as ingest writes it, manifest, ledger and arrays, without converting its scans. Each batch
is ten NIfTI volumes of 6 x 5 x 4 voxels with masks, read by one process; of five batches, each added to the version before, the
median counts.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from ingest_child import config as small_study

from bedside.core.config import Config
from bedside.core.dataset import CaseRecord, Manifest, VolumeRecord
from bedside.core.digest import canonical_json, digest_json
from bedside.core.identity import Identity
from bedside.core.ledger import Entry
from bedside.data.split import split_patients
from bedside.formats.nifti import write_nifti
from bedside.ingest.arrays import store_array, stored_form
from bedside.ingest.manifest import fingerprint
from bedside.ingest.pipeline import ingest
from bedside.ingest.records import case_digest

BATCHES, ADDED = 5, 10
SHAPE = (6, 5, 4)


def image(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(-1000, 1000, SHAPE).astype(np.int16)


def volume(file: str, number: int, role: str) -> VolumeRecord:
    affine = tuple(tuple(float(value) for value in row) for row in np.eye(4))
    return VolumeRecord(file=file, affine=affine, shape=(1, *SHAPE), source=digest_json([number, role]), geometry="sform")


def begin(config: Config, count: int) -> None:
    """Put a version of many cases into the store and the ledger."""
    workspace, cases = config.workspace, []
    with workspace.staging() as staged:
        mask = store_array(staged, stored_form(np.ones((1, *SHAPE), np.uint8)))
        for number in range(count):
            file = store_array(staged, stored_form(image(number)[None]))
            volumes = {"image": volume(file, number, "image"), "label": volume(mask, number, "label")}
            cases.append(CaseRecord(id=f"c{number:06d}", patient=f"c{number:06d}", volumes=volumes))
        manifest = Manifest(
            study=config.study.study,
            contract=config.study.contract,
            cases=tuple(cases),
            splits=split_patients([case.patient for case in cases], **config.study.split.model_dump()),
            received=2 * count,
            accepted=2 * count,
            rejected={},
            duplicates=0,
            names=fingerprint(Identity.of("keep")),
        )
        (staged / "manifest.json").write_bytes(canonical_json(manifest.model_dump(mode="json")))
        digest = workspace.put(staged)
    digests = {case.id: case_digest(case) for case in cases}
    sources = [{role: one.source for role, one in case.volumes.items()} for case in cases]
    entries = [
        Entry("case_accepted", inputs=source, outputs={"case": digests[case.id]}, facts={"case": case.id, "label_apart_mm": 0.0})
        for case, source in zip(cases, sources, strict=True)
    ]
    workspace.ledger.append_all(entries)
    workspace.ledger.append("ingested", inputs=digests, outputs={"dataset": digest}, facts={"receipt": "begun"})


def received(root: Path, first: int) -> Path:
    """Ten volumes with masks that no other batch has."""
    for number in range(first, first + ADDED):
        for folder, array in (("images", image(number)), ("labels", np.ones(SHAPE, np.uint8))):
            (root / folder).mkdir(parents=True, exist_ok=True)
            write_nifti(root / folder / f"n{number:08d}.nii.gz", array, np.eye(4))
    return root


def seconds(folder: Path, count: int) -> float:
    """Processor time of one added batch."""
    begin(small_study(folder / "study", "CT", processes=1, labels="labels"), count)
    took = []
    for batch in range(BATCHES):
        source = received(folder / f"batch-{batch}", 1_000_000 + ADDED * batch)
        config = small_study(folder / "study", "CT", processes=1, labels="labels")
        start = time.process_time()
        dataset = ingest(config, source, add=True)
        took.append(time.process_time() - start)
        assert len(dataset.manifest.cases) == count + ADDED * (batch + 1)
    return statistics.median(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, action="append")
    parser.add_argument("--results", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seconds(Path(folder) / "warm", 20)
        rows = [f"| {count} | {seconds(Path(folder) / str(count), count):.3f} |" for count in asked.cases or (100, 1600, 5000)]
    page = "\n".join(
        [
            "# Adding ten cases",
            "",
            "`python benchmarks/added_batch.py`: processor seconds of `ingest --add` with one process, median of five batches.",
            "",
            "| cases before | seconds |",
            "|---|---|",
            *rows,
            "",
        ]
    )
    print(page)
    if asked.results:
        asked.results.write_text(page)


if __name__ == "__main__":
    main()
