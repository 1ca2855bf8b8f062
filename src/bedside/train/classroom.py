"""What a task is told before its training begins: the cases, the plan, and how to open a teacher."""

from bedside.core.config import Config
from bedside.core.dataset import Dataset
from bedside.core.lesson import Classroom, Lesson, Teacher, lesson_of
from bedside.core.model import Model
from bedside.core.plan import Plan
from bedside.engines.torch import load_network
from bedside.train.planned import learned_from


def lesson_for(config: Config, dataset: Dataset, plan: Plan) -> Lesson:
    """The lesson of the study's task for a training by this plan.

    Raises:
        UsageError: what the task refuses: CHANNELS, DOMAINS, TEACHER; ENGINE_FORMAT, when a teacher is no safetensors model.
        IntegrityError: a teacher's bytes are missing or have changed.
    """

    def teacher(digest: str) -> Teacher:
        model = Model(digest, config.workspace)
        return Teacher(model.spec, load_network(model))

    records = learned_from(config, dataset).records
    study = config.study
    return lesson_of(study.task, Classroom(study.contract, records, plan.preprocessing, plan.patch, teacher))
