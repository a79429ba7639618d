"""Measure how hard it is for a sequence-to-sequence model such as BART to restore a text (`Denoising`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from probes.errors import DataError
from probes.losses.models import (
    Pooling,
    Pretrained,
    attention,
    inference,
    mean_token_loss,
    ordinary_places,
    pad,
    pool_tokens,
    require_draws,
    require_mask_token,
    sample_rng,
    token_ids,
)
from probes.losses.pairs import LossLoader


@dataclass(eq=False, repr=False)
class Denoising(Pretrained, LossLoader[str]):
    """Measure the cross-entropy in nats per token of a text given its corrupted form, the mean over seeded `draws`.

    With `mean_span` the corruption is BART's text infilling (Lewis et al. 2020): each span of Poisson(mean_span)
    tokens, at least one, becomes a single mask token, until `noise_fraction` of the tokens are hidden. If mean_span is
    None, single tokens are masked in place, as in the ELLE article. The embedding is the encoder's last hidden state
    of the *clean* text. `model` is a transformers encoder-decoder ...ForConditionalGeneration.
    """

    objective: ClassVar[str] = "denoising"
    classes: ClassVar[tuple[str, ...]] = ("AutoModelForSeq2SeqLM", "AutoTokenizer")
    setting_names: ClassVar[tuple[str, ...]] = ("noise_fraction", "mean_span", "draws", "seed", "max_tokens", "pooling")

    model: Any
    tokenizer: Any
    _: KW_ONLY
    noise_fraction: float = 0.3
    mean_span: float | None = 3.0
    draws: int = 2
    seed: int = 0
    max_tokens: int = 128
    pooling: Pooling = "first"

    def __post_init__(self) -> None:
        require_draws(self.draws, self.noise_fraction, "noise_fraction")
        require_mask_token(self.tokenizer)
        if self.mean_span is not None and not self.mean_span > 0:
            raise DataError(f"mean_span must be above 0, or None for single tokens, got {self.mean_span}")

    def measure(self, samples: Sequence[str], first: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return embeddings (b, d) of texts and their losses in nats per restored token (b,)."""
        rows = token_ids(self.tokenizer, samples, self.max_tokens, first)
        fill = self.tokenizer.pad_token_id or 0
        with inference(self.model) as device:
            mask = attention(rows, device)
            clean = self.model.get_encoder()(input_ids=pad(rows, fill, device), attention_mask=mask)
            embeddings = pool_tokens(clean.last_hidden_state, mask, self.pooling)
            labels = pad(rows, -100, device)
            losses = np.zeros(len(rows))
            for draw in range(self.draws):
                noisy = [self.corrupted(row, draw, first + k) for k, row in enumerate(rows)]
                output = self.model(
                    input_ids=pad(noisy, fill, device), attention_mask=attention(noisy, device), labels=labels
                )
                losses += mean_token_loss(output.logits, labels)
        return embeddings, losses / self.draws

    def corrupted(self, row: list[int], draw: int = 0, number: int = 0) -> list[int]:
        """Return the token ids of a row with part of the ordinary tokens hidden; special tokens remain in place."""
        ordinary = ordinary_places(self.tokenizer, row, number)
        rng = sample_rng(self.seed, draw, np.asarray(row, dtype=np.int64).tobytes())
        budget = max(1, round(self.noise_fraction * len(ordinary)))
        if self.mean_span is None:
            hidden = np.sort(rng.choice(ordinary, size=budget, replace=False))
            starts = set(hidden.tolist())
        else:
            hidden, starts = _spans(ordinary, budget, self.mean_span, rng)
        gone = set(hidden.tolist())
        mask = self.tokenizer.mask_token_id
        # A span becomes one mask token at its start; its other tokens are removed.
        return [
            mask if place in starts else token
            for place, token in enumerate(row)
            if place in starts or place not in gone
        ]


def _spans(
    ordinary: list[int], budget: int, mean_span: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], set[int]]:
    """Return the places hidden by spans, exactly `budget` of them, and the places at which a span starts."""
    free = np.zeros(max(ordinary) + 1, dtype=bool)
    free[ordinary] = True
    starts: set[int] = set()
    left = budget
    while left:
        length = min(left, max(1, int(rng.poisson(mean_span))))
        start = int(rng.choice(np.flatnonzero(free)))
        starts.add(start)
        for place in range(start, min(start + length, free.size)):
            if not free[place]:
                break
            free[place] = False
            left -= 1
    hidden = np.array([place for place in ordinary if not free[place]], dtype=np.int64)
    return hidden, starts
