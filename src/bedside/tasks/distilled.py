"""A network learns from a larger one that has learned before it."""

from math import prod
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from bedside.core.errors import UsageError
from bedside.core.lesson import Classroom, Lesson, Moment, Teacher, kept_task
from bedside.core.registry import registry
from bedside.core.task import divisors
from bedside.tasks.nested import InnerTask, WrappedTask
from bedside.tasks.segmentation import Segmentation

if TYPE_CHECKING:
    import torch


class Distilled(WrappedTask):
    """Segmentation that also learns what a teacher says of every voxel (Hinton et al. 2015).

    The loss is alpha * the task's own + (1 - alpha) * T^2 * KL(teacher || student), both softened by the temperature T. The
    teacher, a model of the store, sees the same augmented patches, one at a time, in evaluation mode and without gradient; voxels
    that nobody annotated are learned from it too. The model that comes out is a plain one.

    This is where quantization-aware training will have its place as well: a wrapper of its own whose lesson puts rounding into
    the forward pass of what is trained (`Lesson.wrap`), with the same rule that a plain network is kept.

    Attributes:
        teacher: digest of the model.
        task: a segmentation; its structures are the teacher's.
        alpha: share of the task's own loss.
        temperature: above 1 lets the student see which wrong answers the teacher finds likely.
    """

    part_name: ClassVar[Literal["distilled"]] = "distilled"

    teacher: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    task: InnerTask = Segmentation()
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    temperature: Annotated[float, Field(gt=0, le=100)] = 2.0

    @model_validator(mode="after")
    def _softmax(self) -> Self:
        if not isinstance(self.task, Segmentation):
            raise ValueError("the task of distilled must be a segmentation: the teacher's classes exclude one another")  # noqa: TRY004
        return self

    @property
    def parents(self) -> tuple[str, ...]:
        """The teacher."""
        return (self.teacher,)

    def target_channels(self, out_channels: int) -> int:
        """The training ids, and what the teacher says of each class."""
        return 1 + out_channels

    def lesson(self, classroom: Classroom) -> Lesson:
        """Open the teacher.

        Raises:
            UsageError: TEACHER: it knows other structures or channels, sees images prepared in another way, or takes no such
                patches; or it is no model with safetensors weights.
            IntegrityError: its bytes are missing or have changed.
        """
        teacher = classroom.teacher(self.teacher)
        self._check(teacher, classroom)
        return _Taught(teacher)

    def _check(self, teacher: Teacher, classroom: Classroom) -> None:
        spec = teacher.spec
        part = registry("network").resolve(str(spec.network["name"]))
        network = part.model_validate({key: value for key, value in spec.network.items() if key != "name"})
        sides = zip(classroom.patch, divisors(network), strict=True)
        differences = [
            what
            for what, differs in (
                ("structures", spec.contract.structures != classroom.contract.structures),
                ("task", spec.task.get("name") != kept_task(self).part_name),
                ("channels", {spec.in_channels} != {record.volumes["image"].shape[0] for record in classroom.records}),
                ("preprocess", spec.preprocessing != classroom.preprocessing),
                ("patch", any(side % step for side, step in sides)),
            )
            if differs
        ]
        if differences:
            raise UsageError(
                f"The teacher {self.teacher[:12]} and this training do not agree in {', '.join(differences)}; set them to the"
                " teacher's, or take another teacher.",
                code="TEACHER",
            )

    def loss(self, output: "torch.Tensor", target: "torch.Tensor") -> "torch.Tensor":
        """The task's own loss and the divergence from the teacher, the mean over voxels.

        Args:
            output: (B, C, I, J, K) raw network output.
            target: (B, 1 + C, I, J, K): training ids, and the teacher's raw output.
        """
        import torch

        own = self.inner.loss(output, target[:, 0].round().to(torch.uint8))
        softened = (output.float() / self.temperature).log_softmax(1)
        wanted = (target[:, 1:] / self.temperature).log_softmax(1)
        voxels = output.shape[0] * prod(output.shape[2:])
        divergence = (wanted.exp() * (wanted - softened)).sum() / voxels
        return self.alpha * own + (1.0 - self.alpha) * self.temperature**2 * divergence


class _Taught(Lesson):
    """Puts what the teacher says beside the training ids."""

    def __init__(self, teacher: Teacher) -> None:
        self.net = teacher.net.eval().requires_grad_(False)

    def show(self, images: "torch.Tensor", labels: "torch.Tensor", moment: Moment) -> "tuple[torch.Tensor, torch.Tensor]":
        """Images as they are; ids and the teacher's raw output, (B, 1 + C, I, J, K) float32."""
        import torch

        del moment
        with torch.no_grad():
            teacher = self.net.to(images.device)
            said = torch.cat([teacher(image[None]).float() for image in images])
        return images, torch.cat([labels[:, None].float(), said], dim=1)
