"""One ingest in a process of its own, for `ingest_speed.py` and `ingest_memory.py`: FOLDER STUDY MODALITY PAUSE [PROCESSES]."""

import sys
from pathlib import Path
from time import perf_counter, sleep

from bedside.cli import prepare

prepare()  # as the command line does before it imports anything large
# ruff: noqa: E402
from bedside.adapters.nursery import fork_ahead
from bedside.core.config import Config, Study
from bedside.core.site import Site
from bedside.core.workspace import Workspace
from bedside.ingest import pipeline

PROCESSES = 2


def config(folder: Path, modality: str, *, processes: int = PROCESSES, labels: str | None = None) -> Config:
    """A study that takes every volume of a modality."""
    study = {
        "study": "speed",
        "contract": {
            "modality": modality,
            "spacing_mm": [0.01, 100.0],
            "labels": {"background": 0, "bone": 1},
            "min_extent_voxels": 1,
            "hu_check": False,
        },
        "source": {"images": "images", "labels": labels, "identity": "keep"},
        "split": {"test": 0.0, "folds": 2},
        "task": {"name": "segmentation"},
        "network": {"name": "dynunet"},
        "train": {"patch": [8, 8, 8]},
        "promote": {"gates": [{"name": "absolute", "metric": "dice", "floor": 0.5}]},
        "accelerate": {"stages": [{"name": "onnxruntime"}]},
    }
    site = Site(executor="processes", processes=processes, versioning="off", tracking="off")
    return Config(Study.model_validate(study), site, Workspace(folder))


def main(source: str, folder: str, modality: str, pause_seconds: str, processes: str = str(PROCESSES)) -> None:
    labels = "labels" if (Path(source) / "labels").is_dir() else None
    study = config(Path(folder), modality, processes=int(processes), labels=labels)
    fork_ahead("bedside.formats.header_pass", "bedside.ingest.convert")  # as `bedside ingest` does
    print("ready", flush=True)
    sleep(float(pause_seconds))
    started = perf_counter()
    dataset = pipeline.ingest(study, source)
    print(perf_counter() - started, len(dataset.manifest.cases), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
