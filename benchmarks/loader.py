"""Whether a loader process pays: the same training with none and with one, in turns.

python benchmarks/loader.py > benchmarks/results/loader.md

The study is that of `bedside demo`, whose steps are short and whose patches are large, so that it waits the most for its batches.
With none, batches are made between the steps, and that time is all of the waiting.
"""

import argparse
import os
import platform
import tempfile
from importlib.resources import files
from pathlib import Path

import bedside as bs
from bedside.core.config import Config, load
from bedside.core.dataset import Dataset
from bedside.core.run import RunRecord
from bedside.ingest.cohort import write_phantom_cohort


def measure(config: Config, dataset: Dataset, workers: int) -> RunRecord:
    """One training, from the start."""
    site = config.site.model_copy(update={"loader_workers": workers, "versioning": "off", "tracking": "off"})
    return bs.train(Config(config.study, site, config.workspace), dataset, fresh=True).record


def main() -> None:
    """Print the table."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--steps", type=int, default=60)
    reader.add_argument("--times", type=int, default=3)
    asked = reader.parse_args()
    print("# A loader process beside the steps\n")
    print(f"`python benchmarks/loader.py --steps {asked.steps} --times {asked.times}`: {len(os.sched_getaffinity(0))} cores,")
    print(f"{platform.machine()}, load {os.getloadavg()[0]:.1f}.\n")
    print("| loader processes | s per step | waiting of the steps' time |")
    print("|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "study.yaml").write_bytes((files("bedside") / "demo.yaml").read_bytes())
        steps = ["train.minutes=null", f"train.steps={asked.steps}", "train.validations=1", "train.precision=bf16"]
        config = load(folder / "study.yaml", overrides=steps)
        write_phantom_cohort(folder / "scans", patients=36, seed=7)
        dataset = bs.ingest(config, folder / "scans")
        for workers in (0, 1) * asked.times:
            found = measure(config, dataset, workers)
            wait = found.cost.data_seconds / found.cost.step_seconds
            print(f"| {workers} | {found.seconds_per_step:.3f} | {100 * wait:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
