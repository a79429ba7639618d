"""Masked language modelling (BERT, RoBERTa, CodeBERT): how badly hidden tokens are guessed from the rest."""

from __future__ import annotations

from collections.abc import Sequence
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
    pad,
    pool,
    require_draws,
    sample_rng,
    token_ids,
)
from probes.losses.pairs import LossLoader


class MaskedLM(Pretrained, LossLoader[str]):
    """Loss: cross-entropy in nats per masked token, averaged over `draws` seeded masks (Devlin et al. 2019).

    Each draw hides round(mask_fraction x tokens), at least one, of a text's ordinary tokens behind the mask
    token. BERT's habit of keeping or swapping a fifth of them is left out: it serves training, and only adds
    noise here. The embedding is the last hidden state of the *unmasked* text, which is what serving will see.
    `model` is a transformers ...ForMaskedLM, `tokenizer` one with a mask token.
    """

    objective: ClassVar[str] = "masked_lm"
    classes = ("AutoModelForMaskedLM", "AutoTokenizer")
    setting_names = ("mask_fraction", "draws", "seed", "max_tokens", "pooling")

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        mask_fraction: float = 0.15,
        draws: int = 4,
        seed: int = 0,
        max_tokens: int = 128,
        pooling: Pooling = "first",
    ) -> None:
        require_draws(draws, mask_fraction, "mask_fraction")
        if tokenizer.mask_token_id is None:
            raise DataError("the tokenizer of a masked language model must have a mask token, this one has none")
        self.model = model
        self.tokenizer = tokenizer
        self.mask_fraction = mask_fraction
        self.draws = draws
        self.seed = seed
        self.max_tokens = max_tokens
        self.pooling: Pooling = pooling

    def measure(self, samples: Sequence[str], first: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Embeddings (b, d) and nats per masked token (b,)."""
        rows = token_ids(self.tokenizer, samples, self.max_tokens, first)
        fill = self.tokenizer.pad_token_id or 0
        with inference(self.model) as device:
            mask = attention(rows, device)
            clean = self.model(pad(rows, fill, device), attention_mask=mask, output_hidden_states=True)
            embeddings = pool(clean.hidden_states[-1], mask, self.pooling)
            losses = np.zeros(len(rows))
            for draw in range(self.draws):
                hidden = [self._masked(row, draw, first + k) for k, row in enumerate(rows)]
                logits = self.model(pad([masked for masked, _ in hidden], fill, device), attention_mask=mask).logits
                losses += mean_token_loss(logits, pad([labels for _, labels in hidden], -100, device))
        return embeddings, losses / self.draws

    def _masked(self, row: list[int], draw: int, number: int) -> tuple[list[int], list[int]]:
        special = set(self.tokenizer.all_special_ids)
        ordinary = [place for place, token in enumerate(row) if token not in special]
        if not ordinary:
            raise DataError(f"text of sample {number} has no token to mask; leave empty texts out")
        rng = sample_rng(self.seed, draw, np.asarray(row, dtype=np.int64).tobytes())
        count = max(1, round(self.mask_fraction * len(ordinary)))
        chosen = set(rng.choice(ordinary, size=count, replace=False).tolist())
        masked = [self.tokenizer.mask_token_id if place in chosen else token for place, token in enumerate(row)]
        labels = [token if place in chosen else -100 for place, token in enumerate(row)]
        return masked, labels
