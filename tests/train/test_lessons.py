"""Claims about trainings that bring a lesson: what is kept of them, what they may learn from, that they survive a kill."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bedside.core.config import Config, load
from bedside.core.dataset import Dataset
from bedside.core.digest import canonical_json
from bedside.core.errors import InputRejected, IntegrityError, UsageError
from bedside.core.lesson import PLAIN, lesson_of
from bedside.core.plan import Plan
from bedside.data.patches import Example, PatchSampler, find_foreground
from bedside.engines.predict import open_model
from bedside.evaluate.pipeline import evaluate
from bedside.networks.unet import UNet
from bedside.tasks.domain_adversarial import DomainAdversarial
from bedside.tasks.masked_volume import MaskedVolume
from bedside.tasks.segmentation import Segmentation
from bedside.testing import sample_classroom
from bedside.train.loop import Learner
from bedside.train.pipeline import train

from .test_loop import PLAN

ADVERSARIAL = "task={name: domain_adversarial, task: {name: segmentation}, column: site}"


def changed(dataset: Dataset, *, labels: bool = True, sites: bool = False) -> Dataset:
    """The same cases without their masks, or from two sites."""
    workspace, folder = dataset.workspace, dataset.folder
    told = json.loads((folder / "manifest.json").read_bytes())
    for number, case in enumerate(told["cases"]):
        case["site"] = ("north", "south")[number % 2] if sites else ""
        if not labels:
            del case["volumes"]["label"]
    with workspace.staging() as staged:
        for case in told["cases"]:
            for volume in case["volumes"].values():
                (staged / volume["file"]).write_bytes((folder / volume["file"]).read_bytes())
        (staged / "manifest.json").write_bytes(canonical_json(told))
        digest = workspace.put(staged)
    workspace.ledger.append("ingested", outputs={"dataset": digest})
    return Dataset(digest, workspace)


def asked(config: Config, *changes: str) -> Config:
    return load(config.workspace.folder, overrides=list(changes))


def test_images_without_masks_teach_and_a_segmentation_begins_with_what_they_taught(config, dataset):
    bare = changed(dataset, labels=False)
    with pytest.raises(InputRejected) as refused:
        train(config, bare)
    assert refused.value.code == "LABEL_MISSING"
    before = train(asked(config, "task={name: masked_volume, cube: 4}", "train.steps=60", "train.fold=0"), bare)
    losses = [point.loss for point in before.record.curve]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])
    scores = [point.score for point in before.record.curve if point.score is not None]
    assert scores[0] < scores[-1] < 0
    assert before.best().spec.task["name"] == "masked_volume"
    with pytest.raises(UsageError, match="finds no structures"):
        evaluate(before.best(), dataset.cases("test"))
    after = train(asked(config, f"train.from={before.model}", "train.steps=2"), dataset)
    begun = after.record.begun
    assert begun is not None
    assert begun.parent == before.model
    assert begun.head
    assert begun.fresh_count == begun.of - begun.taken <= 2
    assert after.best().spec.task["name"] == "segmentation"


def test_the_model_of_an_adversarial_training_is_a_plain_one(config, dataset):
    two = changed(dataset, sites=True)
    run = train(asked(config, ADVERSARIAL, "train.steps=4"), two)
    plain = train(asked(config, "train.steps=4"), two)
    found, expected = load_file(run.best().weights), load_file(plain.best().weights)
    assert {name: value.shape for name, value in found.items()} == {name: value.shape for name, value in expected.items()}
    assert any(not torch.equal(value, expected[name]) for name, value in found.items())
    assert run.best().spec.task == plain.best().spec.task
    assert run.record.study["task"]["name"] == "domain_adversarial"
    case = next(iter(two.cases("test")))
    assert open_model(run.best())(case).value.shape == case.image.shape[1:]


def test_cases_of_one_site_are_refused_before_a_step_is_done(config, dataset):
    with pytest.raises(UsageError, match="of 0 domains by their site"):
        train(asked(config, ADVERSARIAL), dataset)


def test_the_ledger_names_the_teacher_and_its_bytes_stay(config, dataset):
    teacher = train(config, dataset)
    bytes_before = teacher.best().weights.read_bytes()
    student = train(asked(config, f"task={{name: distilled, teacher: {teacher.model}}}", "train.steps=4"), dataset)
    event = config.workspace.ledger.last("trained")
    assert event.inputs["teacher"] == teacher.model
    assert event.outputs["model"] == student.model
    assert student.best().spec.task["name"] == "segmentation"
    assert teacher.best().weights.read_bytes() == bytes_before


def learner(task=None, lesson=PLAIN, *, channels: int = 2, micro_batch: int = 2) -> Learner:
    image = np.random.default_rng(0).normal(size=(1, 16, 16, 16)).astype(np.float32)
    label = (image[0] > 1).astype(np.uint8)
    network = UNet(features=4, levels=2, residual_units=0)
    plan = Plan(**(PLAN | {"network": network, "micro_batch": micro_batch}))
    examples = [Example(image, label, find_foreground(label), name) for name in ("case-1", "case-2")]
    torch.manual_seed(0)
    net = network.build(1, channels)
    return Learner(net, task or Segmentation(), PatchSampler(examples, plan.patch, 2, 0.5, 0), plan, "fp32", lesson=lesson)


def adversarial() -> Learner:
    task = DomainAdversarial(task=Segmentation())
    return learner(task, lesson_of(task, sample_classroom()))


def test_steps_before_and_after_a_checkpoint_are_the_steps_without_one():
    straight, first, second = adversarial(), adversarial(), adversarial()
    for step in range(6):
        straight.step(step, 6)
    for step in range(3):
        first.step(step, 6)
    second.restore({name: value.clone() for name, value in first.tensors().items()})
    for step in range(3, 6):
        second.step(step, 6)
    one, other = straight.tensors(), second.tensors()
    assert one.keys() == other.keys()
    assert any(name.startswith("beside.head.") for name in one)
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_pieces_of_a_batch_hide_what_the_whole_batch_hides():
    task = MaskedVolume(cube=4)
    lesson = lesson_of(task, sample_classroom())
    shown = []
    for micro_batch in (2, 1):
        one = learner(task, lesson, channels=1, micro_batch=micro_batch)
        images, labels = one.batch(3)
        shown.append(lesson.show(images, labels, one._moment(3, 10, 2))[0])
    assert torch.equal(*shown)
    losses = [learner(task, lesson, channels=1, micro_batch=size).step(0, 10) for size in (2, 1)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_a_checkpoint_of_a_plain_training_does_not_fit_an_adversarial_one():
    plain = learner()
    plain.step(0, 6)
    with pytest.raises(IntegrityError, match="another network"):
        adversarial().restore(plain.tensors())


def test_the_study_of_a_wrapper_comes_back_from_its_own_text(config):
    found = asked(config, ADVERSARIAL).study
    assert found.task == DomainAdversarial(task=Segmentation())
    assert type(found).model_validate(found.model_dump(mode="json")) == found
