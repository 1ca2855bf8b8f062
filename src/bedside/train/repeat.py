"""Training by a plan that is given, instead of one that is made for the machine."""

from bedside.core.config import Config
from bedside.core.dataset import Dataset
from bedside.core.plan import Plan
from bedside.core.progress import SILENT, Progress
from bedside.core.run import Run
from bedside.train.pipeline import checkpoint_folder, train
from bedside.train.planned import keep_plan, kept_plan


def train_as(config: Config, dataset: Dataset, plan: Plan, *, progress: Progress = SILENT) -> Run:
    """Do what `train` does by this plan; a training of the study that is finished is taken, an unfinished one goes on.

    Args:
        config: of a study that leaves nothing of the plan open, with `train.from` as a digest.
        dataset: to learn from.
        plan: every number.
        progress: listener.

    Raises:
        UsageError, ResourceError, Interrupted: as `train`.
    """
    folder = checkpoint_folder(config.workspace, config.study, dataset)
    if kept_plan(folder) is None:
        keep_plan(folder, plan)
    return train(config, dataset, progress=progress)
