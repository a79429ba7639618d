"""Measure the error with which ViT-MAE reconstructs hidden patches of an image (`MaskedImage`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from probes.errors import DataError
from probes.losses.models import Pretrained, inference, numpy32, sample_rng
from probes.losses.pairs import LossLoader


@dataclass(eq=False, repr=False)
class MaskedImage(Pretrained, LossLoader[Any]):
    """Measure the mean squared error over masked patches (He et al. 2022), the mean over `draws` seeded masks.

    The mask ratio and whether patches are normalised are the model's own (`config.mask_ratio`,
    `norm_pix_loss`). The embedding is the class token of the *whole* image, because serving embeds whole
    images; the ELLE article took it from the masked pass. Samples are float arrays (channels, height, width) as the
    model expects them, or anything that `processor` accepts. `model` is a transformers ViTMAEForPreTraining.
    """

    objective: ClassVar[str] = "masked_image"
    classes: ClassVar[tuple[str, ...]] = ("ViTMAEForPreTraining", "AutoImageProcessor")
    setting_names: ClassVar[tuple[str, ...]] = ("draws", "seed")

    model: Any
    processor: Any = None
    _: KW_ONLY
    draws: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise DataError(f"draws must be at least 1, got {self.draws}")

    def settings(self) -> dict[str, Any]:
        """Return the identity of the model and the settings as JSON values."""
        own = {"mask_ratio": self.model.config.mask_ratio, "norm_pix_loss": self.model.config.norm_pix_loss}
        return super().settings() | own

    def measure(self, samples: Sequence[Any], first: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return embeddings (b, d) of images and the mean squared errors of their hidden patches (b,)."""
        import torch

        images = pixels(samples, self.processor, first)
        patches = (self.model.config.image_size // self.model.config.patch_size) ** 2
        with inference(self.model) as device:
            values = torch.from_numpy(images).to(device)
            with _no_mask(self.model):
                # The model sorts patches by their noise; increasing noise keeps them in order.
                order = torch.arange(patches, dtype=torch.float32, device=device).repeat(len(images), 1)
                embeddings = numpy32(self.model.vit(values, noise=order).last_hidden_state[:, 0])
            losses = np.zeros(len(images))
            for draw in range(self.draws):
                noise = [sample_rng(self.seed, draw, i.tobytes()).random(patches, np.float32) for i in images]
                losses += self._errors(values, torch.from_numpy(np.stack(noise)).to(device))
        return embeddings, losses / self.draws

    def _errors(self, values: Any, noise: Any) -> NDArray[np.float64]:
        output = self.model(values, noise=noise)
        target = self.model.patchify(values)
        if self.model.config.norm_pix_loss:
            target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6) ** 0.5
        errors = ((output.logits - target) ** 2).mean(dim=-1).double()
        mask = output.mask.double()
        losses: NDArray[np.float64] = ((errors * mask).sum(dim=1) / mask.sum(dim=1)).cpu().numpy()
        return losses


@contextmanager
def _no_mask(model: Any) -> Iterator[None]:
    """Hide no patch within this context, by a ratio of 0 in the config that transformers reads at every pass."""
    ratio = model.config.mask_ratio
    model.config.mask_ratio = 0.0
    try:
        yield
    finally:
        model.config.mask_ratio = ratio


def pixels(samples: Sequence[Any], processor: Any, first: int) -> NDArray[np.float32]:
    """Return images as one float32 array (b, channels, height, width); raise DataError for anything else."""
    if processor is not None:
        processed = processor(images=list(samples), return_tensors="np")["pixel_values"]
        return np.ascontiguousarray(processed, dtype=np.float32)
    shapes = {np.shape(sample) for sample in samples}
    if len(shapes) != 1 or len(next(iter(shapes))) != 3:
        raise DataError(
            f"images from sample {first} on must be arrays (channels, height, width) of one shape, "
            f"got shapes {sorted(shapes)}; pass a processor to resize images"
        )
    return np.ascontiguousarray(np.stack([np.asarray(sample) for sample in samples]), dtype=np.float32)
