"""How much chance alone moves the score: the same training with other seeds."""

from collections.abc import Sequence
from math import sqrt
from statistics import mean, stdev

from bedside.core.config import Config
from bedside.core.dataset import Dataset
from bedside.core.errors import UsageError
from bedside.core.progress import SILENT, Progress
from bedside.core.record import Record
from bedside.core.run import Run
from bedside.core.seeds import COMPARED, METRIC
from bedside.train.pipeline import train


class SeedScore(Record):
    """One of the trainings: the seed, its run and model, and the best mean Dice on the left-out fold."""

    seed: int
    run: str
    model: str
    score: float


class SeedSpread(Record):
    """What trainings that differ in the seed alone came to.

    Attributes:
        metric: of the scores; dataset, fold: what they were measured on; study: digest of the study with its first seed.
        trainings: each with its score.
        mean, sd: of the scores (sample standard deviation); lowest, highest: of them.
        noise_floor: what two more such trainings would differ by at most in 95 of 100 pairs, see `noise_floor_of`.
    """

    metric: str
    dataset: str
    fold: int
    study: str
    trainings: tuple[SeedScore, ...]
    mean: float
    sd: float
    lowest: float
    highest: float
    noise_floor: float


def train_seeds(
    config: Config, dataset: Dataset, *, count: int, progress: Progress = SILENT, fresh: bool = False
) -> tuple[SeedSpread, str]:
    """Train with `count` seeds, from the study's on, each a run of its own; store and return their spread and its digest.

    Runs that are finished are taken as they are, one that was interrupted goes on.

    Raises:
        UsageError: SEEDS, with fewer than two seeds, or no fold left out to score them on; and what `train` raises.
    """
    fold = config.study.train.fold
    if count < 2:
        raise UsageError("A spread needs two seeds at least; three or more are better.", code="SEEDS")
    if fold is None:
        raise UsageError(
            "The seeds are compared on a fold that is left out, and train.fold is null; add --set train.fold=0.", code="SEEDS"
        )
    done = []
    for seed in range(config.study.train.seed, config.study.train.seed + count):
        changed = config.study.model_copy(update={"train": config.study.train.model_copy(update={"seed": seed})})
        run = train(Config(changed, config.site, config.workspace), dataset, progress=progress, fresh=fresh)
        done.append(SeedScore(seed=seed, run=run.digest, model=run.model, score=best_score(run)))
    found = spread(done, dataset=dataset.digest, fold=fold, study=config.study.digest())
    return found, _stored(config, found)


def noise_floor_of(scores: Sequence[float]) -> float:
    """The repeatability of Bland and Altman (1999, section 2.2) with Student's t, because few seeds say little of their spread.

    6.1 standard deviations for three seeds, 3.2 for ten, 2.8 for many.

    Args:
        scores: of two trainings or more that differ in the seed alone.
    """
    from scipy.special import stdtrit

    return float(stdtrit(len(scores) - 1, 0.975)) * sqrt(2.0) * stdev(scores)


def best_score(run: Run) -> float:
    """The score of the weights that a run kept."""
    return max(point.score for point in run.record.curve if point.score is not None)


def spread(trainings: list[SeedScore], *, dataset: str, fold: int, study: str) -> SeedSpread:
    """Sum the scores up."""
    scores = [one.score for one in trainings]
    return SeedSpread(
        metric=METRIC,
        dataset=dataset,
        fold=fold,
        study=study,
        trainings=tuple(trainings),
        mean=mean(scores),
        sd=stdev(scores),
        lowest=min(scores),
        highest=max(scores),
        noise_floor=noise_floor_of(scores),
    )


def _stored(config: Config, found: SeedSpread) -> str:
    workspace = config.workspace
    digest = workspace.put_record("seeds.json", found, doing="storing the spread of seeds")
    before = workspace.ledger.last(COMPARED)
    if before is None or before.outputs["spread"] != digest:
        workspace.ledger.append(
            COMPARED,
            inputs={"dataset": found.dataset, "study": found.study},
            outputs={"spread": digest},
            facts={"metric": found.metric, "seeds": len(found.trainings), "sd": found.sd, "noise_floor": found.noise_floor},
        )
    return digest
