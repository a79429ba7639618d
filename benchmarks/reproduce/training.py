"""Train small models: the loop and its random numbers, which all of them share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from probes.losses.pairs import slices

Step = Callable[[np.random.Generator], Any]


def seeded(seed: int = 0) -> np.random.Generator:
    """Seed torch's initial weights and give the generator of the batches."""
    import torch

    torch.manual_seed(seed)
    return np.random.default_rng(seed)


def descend(parameters: Any, loss_of: Step, steps: int, rate: float, rng: np.random.Generator) -> None:
    """Train by AdamW with warm-up and cosine decay."""
    import torch

    parameters = list(parameters)
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1.0, (step + 1) / (0.1 * steps)) * 0.5 * (1 + np.cos(np.pi * step / steps)),
    )
    for _ in slices(steps, 1, "training"):
        optimizer.zero_grad()
        loss_of(rng).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
