"""Measure how much a self-distilled model such as DINO disagrees over views of one image (`ViewConsistency`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from probes.errors import DataError
from probes.losses.masked_image import pixels
from probes.losses.models import Pretrained, inference, numpy32, sample_rng
from probes.losses.pairs import LossLoader

Image = NDArray[np.float32]
Views = Callable[[Image, np.random.Generator], Sequence[Image]]


def flip_views(image: Image, rng: np.random.Generator) -> Sequence[Image]:
    """Return the image and its mirror image, the two views of the ELLE article; `rng` is not used."""
    return (image, image[..., ::-1])


@dataclass(eq=False, repr=False)
class ViewConsistency(Pretrained, LossLoader[Any]):
    """Measure how much teacher and student disagree over views of one image, the mean over ordered pairs of views.

    Without `heads` the loss is 1 - cosine of the two class tokens (0 to 2). The ELLE article measured this for DINOv2,
    because its published weights have no projection heads. With `heads` (student head, teacher head: (b, d) ->
    (b, k)) the loss is DINO's cross-entropy (Caron et al. 2021, eq. 3) of softmax((teacher - center) /
    teacher_temperature) against softmax(student / student_temperature), in nats. The teacher defaults to the
    student. The embedding is the teacher's class token of the untouched image. The n-th views of all
    images must have one shape.
    """

    objective: ClassVar[str] = "self_distillation"
    classes: ClassVar[tuple[str, ...]] = ("AutoModel", "AutoImageProcessor")

    student: Any
    processor: Any = None
    _: KW_ONLY
    teacher: Any = None
    views: Views = flip_views
    heads: tuple[Any, Any] | None = None
    center: NDArray[np.float32] | None = None
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    seed: int = 0

    def __post_init__(self) -> None:
        self.teacher = self.model = self.student if self.teacher is None else self.teacher

    def settings(self) -> dict[str, Any]:
        """Return the identity of the model and the settings as JSON values."""
        kind = (
            {"loss": "1 - cosine"}
            if self.heads is None
            else {
                "loss": "cross_entropy",
                "student_temperature": self.student_temperature,
                "teacher_temperature": self.teacher_temperature,
            }
        )
        views = getattr(self.views, "__name__", type(self.views).__name__)
        return super().settings() | {**kind, "views": views, "seed": self.seed}

    def measure(self, samples: Sequence[Any], first: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return embeddings (b, d) of images and the disagreement over their views (b,)."""
        import torch

        images = pixels(samples, self.processor, first)
        per_image = [list(self.views(image, sample_rng(self.seed, 0, image.tobytes()))) for image in images]
        if min(map(len, per_image)) < 2 or len(set(map(len, per_image))) > 1:
            raise DataError("views must give the same number of views, at least two, for every image")
        heads = () if self.heads is None else self.heads
        with inference(self.student, self.teacher, *heads) as device:
            embeddings = numpy32(_class_token(self.teacher, torch.from_numpy(images).to(device)))
            views = [torch.from_numpy(np.stack(view)).to(device) for view in zip(*per_image, strict=True)]
            students = [_class_token(self.student, view) for view in views]
            teachers = (
                students if self.teacher is self.student else [_class_token(self.teacher, view) for view in views]
            )
            losses = [
                self._disagreement(teacher, student)
                for i, teacher in enumerate(teachers)
                for j, student in enumerate(students)
                if i != j
            ]
        return embeddings, np.mean(losses, axis=0)

    def _disagreement(self, teacher: Any, student: Any) -> NDArray[np.float64]:
        import torch

        if self.heads is None:
            losses = 1.0 - torch.nn.functional.cosine_similarity(teacher.double(), student.double(), dim=-1)
        else:
            wanted, given = self.heads[1](teacher).double(), self.heads[0](student).double()
            if self.center is not None:
                wanted = wanted - torch.from_numpy(self.center).to(wanted)
            wanted = torch.softmax(wanted / self.teacher_temperature, dim=-1)
            losses = -(wanted * torch.log_softmax(given / self.student_temperature, dim=-1)).sum(dim=-1)
        result: NDArray[np.float64] = losses.cpu().numpy()
        return result


def _class_token(model: Any, values: Any) -> Any:
    return model(pixel_values=values).last_hidden_state[:, 0]
