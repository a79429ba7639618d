"""Train small image models on the spot, each with the objective whose loss is measured afterwards."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.reproduce.training import descend, seeded


def _vit(size: int, patch: int, channels: int) -> dict[str, Any]:
    return {
        "image_size": size,
        "patch_size": patch,
        "num_channels": channels,
        "hidden_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 288,
    }


def masked_image(images: Sequence[NDArray[np.float32]], steps: int, patch: int, mask_ratio: float) -> Any:
    """Train a ViT-MAE of 0.3 M parameters; pixels are standardised by the caller or left as they are."""
    import torch
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    from probes.losses import MaskedImage

    rng = seeded()
    stack = torch.from_numpy(np.stack(images))
    config = ViTMAEConfig(
        **_vit(stack.shape[-1], patch, stack.shape[1]),
        decoder_hidden_size=64,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=192,
        mask_ratio=mask_ratio,
    )
    model = ViTMAEForPreTraining(config).train()
    descend(
        model.parameters(),
        lambda rng: model(stack[torch.from_numpy(rng.integers(len(stack), size=96))]).loss,
        steps,
        2e-3,
        rng,
    )
    return MaskedImage(model, draws=8)


def jittered(image: NDArray[np.float32], rng: np.random.Generator, count: int = 2) -> list[NDArray[np.float32]]:
    """Return views of an image, moved by up to one pixel, with other contrast and brightness, and with noise."""
    views = []
    for _ in range(count):
        moved = np.roll(image, tuple(rng.integers(-1, 2, size=2)), axis=(1, 2))
        changed = moved * rng.uniform(0.8, 1.2) + rng.uniform(-0.1, 0.1) + 0.05 * rng.normal(size=image.shape)
        views.append(changed.astype(np.float32))
    return views


def eight_jittered(image: NDArray[np.float32], rng: np.random.Generator) -> list[NDArray[np.float32]]:
    """Return eight views to measure with; their 56 ordered pairs average out the chance of the draw."""
    return jittered(image, rng, 8)


def self_distillation(images: Sequence[NDArray[np.float32]], steps: int) -> Any:
    """Train DINO: a student ViT with a projection head, and a teacher, its moving average (Caron et al. 2021)."""
    import torch
    from transformers import Dinov2Config, Dinov2Model

    from probes.losses import ViewConsistency

    rng = seeded()
    config = Dinov2Config(
        **_vit(images[0].shape[-1], 2, images[0].shape[0]),
        drop_path_rate=0.0,
        layerscale_value=1.0,
        # At the usual 0.02 the class token hardly sees the image, and DINO settles on one answer for all.
        initializer_range=0.15,
    )
    student = Dinov2Model(config)
    head = _projection_head(96, 64)
    teacher, teacher_head = copy.deepcopy(student).eval(), copy.deepcopy(head).eval()
    center = torch.zeros(64)

    def loss_of(rng: np.random.Generator) -> Any:
        _follow([(teacher, student), (teacher_head, head)], 0.99)
        batch = [jittered(images[i], rng) for i in rng.integers(len(images), size=64)]
        views = [torch.from_numpy(np.stack(view)) for view in zip(*batch, strict=True)]
        with torch.no_grad():
            wanted = [teacher_head(teacher(view).last_hidden_state[:, 0]) for view in views]
        given = [head(student(view).last_hidden_state[:, 0]) for view in views]
        targets = [torch.softmax((w - center) / 0.04, dim=-1) for w in wanted]
        center.mul_(0.9).add_(0.1 * torch.cat(wanted).mean(dim=0))
        pairs = ((targets[0], given[1]), (targets[1], given[0]))
        return sum(-(t * torch.log_softmax(g / 0.1, dim=-1)).sum(dim=-1).mean() for t, g in pairs) / 2

    descend([*student.parameters(), *head.parameters()], loss_of, steps, 1e-3, rng)
    return ViewConsistency(
        student,
        teacher=teacher,
        views=eight_jittered,
        heads=(head, teacher_head),
        center=center.numpy(),
        teacher_temperature=0.04,
    )


def _projection_head(width: int, prototypes: int) -> Any:
    """Return a last layer that compares features with learned prototypes by their cosine.

    Without its two normalisations the answers shrink to uniform.
    """
    import torch
    from torch.nn.functional import normalize

    class Cosines(torch.nn.Linear):
        def forward(self, hidden: Any) -> Any:
            return normalize(hidden, dim=-1) @ normalize(self.weight, dim=-1).T

    return torch.nn.Sequential(
        torch.nn.Linear(width, width), torch.nn.GELU(), torch.nn.Linear(width, 32), Cosines(32, prototypes, bias=False)
    )


def _follow(pairs: list[tuple[Any, Any]], momentum: float) -> None:
    import torch

    with torch.no_grad():
        for slow, fast in pairs:
            for one, other in zip(slow.parameters(), fast.parameters(), strict=True):
                one.mul_(momentum).add_(other, alpha=1 - momentum)


def location_towers(
    pairs: Sequence[tuple[NDArray[np.float32], NDArray[Any]]], steps: int
) -> Callable[[Sequence[Any], Sequence[Any]], tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Train SatCLIP in small: a ViT for scenes and a network for places, by symmetric InfoNCE."""
    import torch
    from transformers import ViTConfig, ViTModel

    rng = seeded()
    images = torch.from_numpy(np.stack([image for image, _ in pairs]))
    places = torch.from_numpy(np.stack([_harmonics(place) for _, place in pairs]))
    vision = ViTModel(ViTConfig(**_vit(images.shape[-1], 4, images.shape[1])), add_pooling_layer=False)
    projection = torch.nn.Linear(96, 64)
    ground = torch.nn.Sequential(torch.nn.Linear(places.shape[1], 128), torch.nn.GELU(), torch.nn.Linear(128, 64))

    def towers(pixels: Any, coordinates: Any) -> tuple[Any, Any]:
        seen = projection(vision(pixels).last_hidden_state[:, 0])
        return seen, ground(coordinates)

    def loss_of(rng: np.random.Generator) -> Any:
        rows = torch.from_numpy(rng.integers(len(images), size=96))
        a, b = (torch.nn.functional.normalize(side, dim=1) for side in towers(images[rows], places[rows]))
        logits, own = a @ b.T / 0.1, torch.arange(len(rows))
        cross_entropy = torch.nn.functional.cross_entropy
        return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2

    descend([*vision.parameters(), *projection.parameters(), *ground.parameters()], loss_of, steps, 2e-3, rng)

    def embed(scenes: Sequence[Any], where: Sequence[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        parts: list[tuple[Any, Any]] = []
        with torch.no_grad():
            for start in range(0, len(scenes), 256):
                pixels = torch.from_numpy(np.stack(scenes[start : start + 256]))
                coordinates = torch.from_numpy(np.stack([_harmonics(p) for p in where[start : start + 256]]))
                parts.append(towers(pixels, coordinates))
        return tuple(torch.cat(side).numpy() for side in zip(*parts, strict=True))  # type: ignore[return-value]

    return embed


def _harmonics(place: NDArray[Any]) -> NDArray[np.float32]:
    longitude, latitude = np.radians(place)
    waves = [f(k * angle) for k in (1, 2, 3, 4) for angle in (longitude, latitude) for f in (np.sin, np.cos)]
    return np.array(waves, dtype=np.float32)
