"""Measure how hard the hidden tokens of a text are to predict for BERT and its kind (`MaskedLM`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

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
class MaskedLM(Pretrained, LossLoader[str]):
    """Measure the cross-entropy in nats per masked token, the mean over `draws` seeded masks (Devlin et al. 2019).

    Each draw replaces round(mask_fraction x tokens), at least one, of a text's ordinary tokens by the mask token. BERT
    keeps or swaps a fifth of them, which helps training; it would only add noise here, so it is left out. The embedding
    is the last hidden state of the *unmasked* text, because serving embeds unmasked texts. `model` is a transformers
    ...ForMaskedLM, `tokenizer` one with a mask token.
    """

    objective: ClassVar[str] = "masked_lm"
    classes: ClassVar[tuple[str, ...]] = ("AutoModelForMaskedLM", "AutoTokenizer")
    setting_names: ClassVar[tuple[str, ...]] = ("mask_fraction", "draws", "seed", "max_tokens", "pooling")

    model: Any
    tokenizer: Any
    _: KW_ONLY
    mask_fraction: float = 0.15
    draws: int = 4
    seed: int = 0
    max_tokens: int = 128
    pooling: Pooling = "first"

    def __post_init__(self) -> None:
        require_draws(self.draws, self.mask_fraction, "mask_fraction")
        require_mask_token(self.tokenizer)

    def measure(self, samples: Sequence[str], first: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return embeddings (b, d) of texts and their losses in nats per masked token (b,)."""
        rows = token_ids(self.tokenizer, samples, self.max_tokens, first)
        fill = self.tokenizer.pad_token_id or 0
        with inference(self.model) as device:
            mask = attention(rows, device)
            clean = self.model(pad(rows, fill, device), attention_mask=mask, output_hidden_states=True)
            embeddings = pool_tokens(clean.hidden_states[-1], mask, self.pooling)
            losses = np.zeros(len(rows))
            for draw in range(self.draws):
                hidden = [self._masked(row, draw, first + k) for k, row in enumerate(rows)]
                logits = self.model(pad([masked for masked, _ in hidden], fill, device), attention_mask=mask).logits
                losses += mean_token_loss(logits, pad([labels for _, labels in hidden], -100, device))
        return embeddings, losses / self.draws

    def _masked(self, row: list[int], draw: int, number: int) -> tuple[list[int], list[int]]:
        ordinary = ordinary_places(self.tokenizer, row, number)
        rng = sample_rng(self.seed, draw, np.asarray(row, dtype=np.int64).tobytes())
        count = max(1, round(self.mask_fraction * len(ordinary)))
        chosen = set(rng.choice(ordinary, size=count, replace=False).tolist())
        masked = [self.tokenizer.mask_token_id if place in chosen else token for place, token in enumerate(row)]
        labels = [token if place in chosen else -100 for place, token in enumerate(row)]
        return masked, labels
