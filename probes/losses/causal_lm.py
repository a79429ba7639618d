"""Measure the loss per token of a text under a causal language model such as GPT (`CausalLM`)."""

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
    pad,
    pool_tokens,
    token_ids,
)
from probes.losses.pairs import LossLoader


@dataclass(eq=False, repr=False)
class CausalLM(Pretrained, LossLoader[str]):
    """Measure the mean of -log p(token | tokens before it) in nats, over every token except the first.

    The embedding is the last hidden state, averaged over tokens (default) or at the last token. A text needs
    at least two tokens. `model` is a transformers ...ForCausalLM.
    """

    objective: ClassVar[str] = "causal_lm"
    classes: ClassVar[tuple[str, ...]] = ("AutoModelForCausalLM", "AutoTokenizer")
    setting_names: ClassVar[tuple[str, ...]] = ("max_tokens", "pooling")

    model: Any
    tokenizer: Any
    _: KW_ONLY
    max_tokens: int = 128
    pooling: Pooling = "mean"

    def measure(self, samples: Sequence[str], first: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return embeddings (b, d) of texts and their losses in nats per token (b,)."""
        rows = token_ids(self.tokenizer, samples, self.max_tokens, first)
        for offset, row in enumerate(rows):
            if len(row) < 2:
                raise DataError(
                    f"text of sample {first + offset} must have at least two tokens, got {len(row)}: "
                    "the first token has nothing before it to be predicted from"
                )
        with inference(self.model) as device:
            mask = attention(rows, device)
            output = self.model(pad(rows, 0, device), attention_mask=mask, output_hidden_states=True)
            # Position t predicts token t + 1, hence the shift by one.
            losses = mean_token_loss(output.logits[:, :-1], pad(rows, -100, device)[:, 1:])
            return pool_tokens(output.hidden_states[-1], mask, self.pooling), losses
