"""Measure how hard the hidden tokens of a text are to restore: for BERT (`MaskedLM`) and for BART (`Denoising`)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
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
class HiddenTokens(Pretrained, LossLoader[str]):
    """The base of the losses that hide tokens of a text at random, such as `MaskedLM`: the mean over seeded `draws`.

    The embedding is the pooled last hidden state of the text with nothing hidden, because that is what serving embeds.
    """

    model: Any
    tokenizer: Any
    _: KW_ONLY
    draws: int = 1
    seed: int = 0
    max_tokens: int = 128
    pooling: Pooling = "first"

    def measure(self, samples: Sequence[str], first: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return embeddings (b, d) of texts and their losses in nats per hidden token (b,)."""
        rows = token_ids(self.tokenizer, samples, self.max_tokens, first)
        with inference(self.model) as device:
            mask = attention(rows, device)
            states = self._last_hidden_state(self._padded(rows, device), mask)
            embeddings = pool_tokens(states, mask, self.pooling)
            losses = np.zeros(len(rows))
            for draw in range(self.draws):
                losses += self._losses_of_draw(rows, draw, first, device)
        return embeddings, losses / self.draws

    @abstractmethod
    def _last_hidden_state(self, ids: Any, mask: Any) -> Any:
        """Return the last hidden state (b, t, d) of token ids (b, t) with their attention mask."""

    @abstractmethod
    def _losses_of_draw(self, rows: list[list[int]], draw: int, first: int, device: Any) -> NDArray[np.float64]:
        """Return the losses (b,) of the rows under one draw; `first` numbers rows[0] in error messages."""

    def _padded(self, rows: list[list[int]], device: Any) -> Any:
        return pad(rows, self.tokenizer.pad_token_id or 0, device)

    def _draw_from(
        self, row: list[int], draw: int, number: int, fraction: float
    ) -> tuple[list[int], int, np.random.Generator]:
        """Return the places that may be hidden, how many to hide (at least one), and the generator of this draw."""
        ordinary = ordinary_places(self.tokenizer, row, number)
        rng = sample_rng(self.seed, draw, np.asarray(row, dtype=np.int64).tobytes())
        return ordinary, max(1, round(fraction * len(ordinary))), rng


@dataclass(eq=False, repr=False)
class MaskedLM(HiddenTokens):
    """Measure the cross-entropy in nats per masked token, the mean over `draws` seeded masks (Devlin et al. 2019).

    Each draw replaces round(mask_fraction x tokens), at least one, of a text's ordinary tokens by the mask token. BERT
    keeps or swaps a fifth of them, which helps training; it would only add noise here, so it is left out. The embedding
    is the last hidden state of the *unmasked* text, because serving embeds unmasked texts. `model` is a transformers
    ...ForMaskedLM, `tokenizer` one with a mask token.
    """

    objective: ClassVar[str] = "masked_lm"
    classes: ClassVar[tuple[str, ...]] = ("AutoModelForMaskedLM", "AutoTokenizer")
    setting_names: ClassVar[tuple[str, ...]] = ("mask_fraction", "draws", "seed", "max_tokens", "pooling")

    mask_fraction: float = field(default=0.15, kw_only=True)
    draws: int = field(default=4, kw_only=True)

    def __post_init__(self) -> None:
        require_draws(self.draws, self.mask_fraction, "mask_fraction")
        require_mask_token(self.tokenizer)

    def _last_hidden_state(self, ids: Any, mask: Any) -> Any:
        return self.model(ids, attention_mask=mask, output_hidden_states=True).hidden_states[-1]

    def _losses_of_draw(self, rows: list[list[int]], draw: int, first: int, device: Any) -> NDArray[np.float64]:
        hidden = [self._masked(row, draw, first + k) for k, row in enumerate(rows)]
        ids = self._padded([masked for masked, _ in hidden], device)
        logits = self.model(ids, attention_mask=attention(rows, device)).logits
        return mean_token_loss(logits, pad([labels for _, labels in hidden], -100, device))

    def _masked(self, row: list[int], draw: int, number: int) -> tuple[list[int], list[int]]:
        ordinary, count, rng = self._draw_from(row, draw, number, self.mask_fraction)
        chosen = set(rng.choice(ordinary, size=count, replace=False).tolist())
        masked = [self.tokenizer.mask_token_id if place in chosen else token for place, token in enumerate(row)]
        labels = [token if place in chosen else -100 for place, token in enumerate(row)]
        return masked, labels


@dataclass(eq=False, repr=False)
class Denoising(HiddenTokens):
    """Measure the cross-entropy in nats per token of a text given its corrupted form, the mean over seeded `draws`.

    With `mean_span` the corruption is BART's text infilling (Lewis et al. 2020): each span of Poisson(mean_span)
    tokens, at least one, becomes a single mask token, until `noise_fraction` of the tokens are hidden. If mean_span is
    None, single tokens are masked in place, as in the ELLE article. The embedding is the encoder's last hidden state
    of the *clean* text. `model` is a transformers encoder-decoder ...ForConditionalGeneration.
    """

    objective: ClassVar[str] = "denoising"
    classes: ClassVar[tuple[str, ...]] = ("AutoModelForSeq2SeqLM", "AutoTokenizer")
    setting_names: ClassVar[tuple[str, ...]] = ("noise_fraction", "mean_span", "draws", "seed", "max_tokens", "pooling")

    noise_fraction: float = field(default=0.3, kw_only=True)
    mean_span: float | None = field(default=3.0, kw_only=True)
    draws: int = field(default=2, kw_only=True)

    def __post_init__(self) -> None:
        require_draws(self.draws, self.noise_fraction, "noise_fraction")
        require_mask_token(self.tokenizer)
        if self.mean_span is not None and not self.mean_span > 0:
            raise DataError(f"mean_span must be above 0, or None for single tokens, got {self.mean_span}")

    def _last_hidden_state(self, ids: Any, mask: Any) -> Any:
        return self.model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state

    def _losses_of_draw(self, rows: list[list[int]], draw: int, first: int, device: Any) -> NDArray[np.float64]:
        noisy = [self.corrupted(row, draw, first + k) for k, row in enumerate(rows)]
        labels = pad(rows, -100, device)
        output = self.model(
            input_ids=self._padded(noisy, device), attention_mask=attention(noisy, device), labels=labels
        )
        return mean_token_loss(output.logits, labels)

    def corrupted(self, row: list[int], draw: int = 0, number: int = 0) -> list[int]:
        """Return the token ids of a row with part of the ordinary tokens hidden; special tokens remain in place."""
        ordinary, budget, rng = self._draw_from(row, draw, number, self.noise_fraction)
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
