"""Claims about learning from a teacher."""

import pytest
import torch
from pydantic import ValidationError

from bedside.core.errors import UsageError
from bedside.core.lesson import Classroom, Moment, kept_task, parents_of
from bedside.core.model import Preprocessing
from bedside.tasks.distilled import Distilled
from bedside.tasks.segmentation import Segmentation
from bedside.testing import sample_classroom

DIGEST = "ab" * 32


def test_the_gradient_is_the_difference_of_softened_probabilities():
    """d/dz of T^2 KL(softmax(t/T) || softmax(z/T)) is T (softmax(z/T) - softmax(t/T)); the mean over voxels."""
    chance, temperature = torch.Generator().manual_seed(0), 3.0
    student = torch.randn(2, 3, 4, 3, 2, generator=chance, requires_grad=True)
    teacher = torch.randn(2, 3, 4, 3, 2, generator=chance)
    target = torch.cat([torch.zeros(2, 1, 4, 3, 2), teacher], dim=1)
    Distilled(teacher=DIGEST, alpha=0.0, temperature=temperature).loss(student, target).backward()
    difference = (student.detach() / temperature).softmax(1) - (teacher / temperature).softmax(1)
    torch.testing.assert_close(student.grad, temperature * difference / (2 * 4 * 3 * 2))


def test_a_student_that_says_what_the_teacher_says_pays_for_the_task_only():
    chance = torch.Generator().manual_seed(0)
    output, labels = torch.randn(1, 3, 4, 4, 4, generator=chance), torch.randint(0, 3, (1, 4, 4, 4), generator=chance).byte()
    target = torch.cat([labels[:, None].float(), output], dim=1)
    found = float(Distilled(teacher=DIGEST, alpha=0.25).loss(output, target))
    assert found == pytest.approx(0.25 * float(Segmentation().loss(output, labels)), abs=1e-6)


def test_the_teacher_sees_the_same_patches_without_gradient_and_stays_what_it_is():
    teacher = sample_classroom().teacher(DIGEST)
    before = {name: value.clone() for name, value in teacher.net.state_dict().items()}
    rooms = sample_classroom()
    room = Classroom(rooms.contract, rooms.records, rooms.preprocessing, (16, 16, 16), lambda digest: teacher)
    images, labels = torch.randn(2, 1, 16, 16, 16), torch.ones(2, 16, 16, 16, dtype=torch.uint8)
    moment = Moment(step=0, total=1, seed=0, cases=("a", "b"), rows=(0, 1))
    shown, target = Distilled(teacher=DIGEST).lesson(room).show(images, labels, moment)
    assert torch.equal(shown, images)
    assert not target.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(target[:, 1:], teacher.net.eval()(images))
    assert all(torch.equal(value, before[name]) for name, value in teacher.net.state_dict().items())


def test_a_teacher_that_does_not_fit_is_refused_with_what_differs():
    room = sample_classroom()
    other = Classroom(room.contract, room.records, Preprocessing(spacing_mm=(1, 1, 1)), (15, 16, 16), room.teacher)
    with pytest.raises(UsageError, match="do not agree in preprocess, patch"):
        Distilled(teacher=DIGEST).lesson(other)


def test_what_is_kept_is_a_plain_segmentation_and_the_teacher_is_named():
    task = Distilled(teacher=DIGEST)
    assert kept_task(task) == Segmentation()
    assert parents_of(task) == (DIGEST,)


def test_a_task_whose_classes_overlap_is_refused():
    with pytest.raises(ValidationError, match="must be a segmentation"):
        Distilled.model_validate({"teacher": DIGEST, "task": {"name": "masked_volume"}})
