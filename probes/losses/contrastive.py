"""Measure how hard it is to find a sample's partner among others (CLIP, sentence encoders, SatCLIP)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probes.errors import DataError, DimensionError
from probes.losses.models import (
    Pooling,
    Pretrained,
    attention,
    inference,
    numpy32,
    pad,
    pool_tokens,
    token_ids,
)
from probes.losses.pairs import LossPairs, slices

_ROWS_AT_ONCE = 1024


def info_nce(
    anchors: ArrayLike,
    partners: ArrayLike,
    *,
    temperature: float,
    batch_size: int | None = None,
    draws: int = 1,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return InfoNCE in nats per anchor (n,): -log softmax of cosine / temperature at its partner.

    Source: van den Oord et al. 2018. anchors, partners: (n, d), row i belongs to row i, n >= 2. The distractors are
    the partners of the other rows: all n - 1, or with `batch_size` those of a random batch of at least that size (n
    divided evenly), the mean over `draws` shuffles, which is the loss in training.
    """
    a, b = _unit_pairs(anchors, partners)
    n = len(a)
    if n < 2 or (batch_size is not None and batch_size < 2):
        raise DataError(f"in-batch negatives need at least two pairs, got n={n}, batch_size={batch_size}")
    if not temperature > 0 or draws < 1:
        raise DataError(f"temperature must be above 0 and draws at least 1, got {temperature} and {draws}")
    rng = np.random.default_rng(seed)
    batches = 1 if batch_size is None else max(1, n // batch_size)
    # With all rows in one batch, shuffling changes nothing.
    shuffles = 1 if batches == 1 else draws
    losses = np.zeros(n)
    for _ in range(shuffles):
        # Batches differ by at most one row, so that every pair has as many distractors as the others.
        for batch in np.array_split(rng.permutation(n), batches):
            losses[batch] += _row_losses(a[batch], b[batch], temperature)
    mean: NDArray[np.float64] = losses / shuffles
    return mean


def symmetric_info_nce(anchors: ArrayLike, partners: ArrayLike, **settings: Any) -> NDArray[np.float64]:
    """Return the mean of InfoNCE in both directions in nats (n,), as CLIP trains it (Radford et al. 2021).

    The one direction finds the partner of an anchor, the other the anchor of a partner, in the same batches.
    `settings` are those of `info_nce`.
    """
    there, back = info_nce(anchors, partners, **settings), info_nce(partners, anchors, **settings)
    return (there + back) / 2


def _row_losses(a: NDArray[np.float64], b: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    losses = np.empty(len(a))
    for start in range(0, len(a), _ROWS_AT_ONCE):
        rows = np.arange(start, min(start + _ROWS_AT_ONCE, len(a)))
        logits = a[rows] @ b.T / temperature
        own = logits[np.arange(len(rows)), rows]
        top = logits.max(axis=1)
        losses[rows] = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top - own
    return losses


def cosine_misalignment(anchors: ArrayLike, partners: ArrayLike) -> NDArray[np.float64]:
    """Return 1 - cosine of each pair, (n,), 0 to 2, as the ELLE article measured for SatCLIP and RemoteCLIP."""
    a, b = _unit_pairs(anchors, partners)
    cosines: NDArray[np.float64] = np.einsum("ij,ij->i", a, b)
    return 1.0 - cosines


def _unit_pairs(anchors: ArrayLike, partners: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both arrays with rows of length 1; raise DimensionError unless they have one shape (n, d)."""
    a, b = _unit(anchors, "anchors"), _unit(partners, "partners")
    if a.shape != b.shape:
        raise DimensionError(f"anchors and partners must have one shape, got {a.shape} and {b.shape}")
    return a, b


def _unit(values: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2:
        raise DimensionError(f"{name} must have shape (n, d), got {array.shape}")
    norms = np.linalg.norm(array, axis=1)
    bad = ~(np.isfinite(norms) & (norms > 0))
    if bad.any():
        raise DataError(f"row {int(np.argmax(bad))} of {name} must be finite and not all zero to have a direction")
    unit: NDArray[np.float64] = array / norms[:, None]
    return unit


def contrastive_pairs(
    anchors: ArrayLike,
    partners: ArrayLike,
    *,
    loss: Literal["info_nce", "symmetric_info_nce", "cosine"] = "info_nce",
    ids: Sequence[str] | None = None,
    provenance: dict[str, Any] | None = None,
    **settings: Any,
) -> LossPairs:
    """Return loss pairs from two embedding arrays (n, d), for example of images and locations.

    The anchors are the embeddings of the pairs.

    `settings` are those of `info_nce`, which requires `temperature`; the cosine loss has none.
    """
    functions: dict[str, Callable[..., NDArray[np.float64]]] = {
        "info_nce": info_nce,
        "symmetric_info_nce": symmetric_info_nce,
        "cosine": cosine_misalignment,
    }
    losses = functions[loss](anchors, partners, **settings)
    known = {"objective": "contrastive", "loss": loss, **settings, **(provenance or {})}
    return LossPairs(np.asarray(anchors), losses, None if ids is None else tuple(ids), known)


@dataclass(eq=False, repr=False, kw_only=True)
class _BatchContrast(Pretrained):
    """The base of the loaders whose loss contrasts each pair with the other pairs of its batch."""

    negatives_batch: int | None = 1024
    draws: int = 4
    seed: int = 0

    def _pairs(self, anchors: Any, partners: Any, ids: Sequence[str] | None, **loss: Any) -> LossPairs:
        """Return the anchors with their losses. `loss`: its temperature, and its name if it is not InfoNCE."""
        return contrastive_pairs(
            anchors,
            partners,
            batch_size=self.negatives_batch,
            draws=self.draws,
            seed=self.seed,
            ids=ids,
            provenance=self.settings(),
            **loss,
        )


@dataclass(eq=False, repr=False)
class SentencePairs(_BatchContrast):
    """Measure the InfoNCE of a sentence encoder (MiniLM and its kind) over (anchor, partner) texts.

    The default temperature 0.05 is the scale of 20 with which sentence-transformers trains all-MiniLM. The
    embedding is the pooled last hidden state of the anchor, before the normalisation that the loss applies.
    """

    classes: ClassVar[tuple[str, ...]] = ("AutoModel", "AutoTokenizer")
    setting_names: ClassVar[tuple[str, ...]] = ("max_tokens", "pooling")

    model: Any
    tokenizer: Any
    _: KW_ONLY
    temperature: float = 0.05
    max_tokens: int = 256
    pooling: Pooling = "mean"

    def embed(self, texts: Sequence[str], *, batch_size: int = 32, progress: bool | None = None) -> NDArray[np.float32]:
        """Return pooled embeddings (n, d) of the texts, in their order; texts of similar length share a batch."""
        if not len(texts):
            raise DataError("sentence pairs need at least one text, got none")
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        rows: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(texts)
        with inference(self.model) as device:
            for part in slices(len(texts), batch_size, "sentence embeddings", progress):
                places = order[part]
                ids = token_ids(self.tokenizer, [texts[place] for place in places], self.max_tokens, part.start)
                mask = attention(ids, device)
                hidden = self.model(pad(ids, self.tokenizer.pad_token_id or 0, device), attention_mask=mask)
                for place, row in zip(places, pool_tokens(hidden.last_hidden_state, mask, self.pooling), strict=True):
                    rows[place] = row
        return np.stack(rows)

    def collect(
        self,
        anchors: Sequence[str],
        partners: Sequence[str],
        *,
        batch_size: int = 32,
        ids: Sequence[str] | None = None,
        progress: bool | None = None,
    ) -> LossPairs:
        """Embed anchors and partners, and return the anchors' embeddings with their InfoNCE in nats."""
        _require_partners(anchors, partners)
        own = self.embed(anchors, batch_size=batch_size, progress=progress)
        others = self.embed(partners, batch_size=batch_size, progress=progress)
        return self._pairs(own, others, ids, temperature=self.temperature)


@dataclass(eq=False, repr=False)
class TwoTowers(_BatchContrast):
    """Measure the symmetric InfoNCE of a CLIP-like model over (image, text) pairs, at the model's own temperature.

    `model` has get_image_features, get_text_features and logit_scale (CLIP and its kind); `processor`
    turns images and texts into its inputs. The embedding is that of the image.
    """

    classes: ClassVar[tuple[str, ...]] = ("AutoModel", "AutoProcessor")

    model: Any
    processor: Any

    def embed(
        self,
        images: Sequence[Any],
        texts: Sequence[str],
        *,
        batch_size: int = 32,
        progress: bool | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the projected embeddings of the images (n, d) and of the texts (n, d)."""
        _require_partners(images, texts)
        towers: tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]] = ([], [])
        with inference(self.model) as device:
            for part in slices(len(images), batch_size, "image and text embeddings", progress):
                inputs = self.processor(
                    images=list(images[part]),
                    text=list(texts[part]),
                    return_tensors="pt",
                    padding=True,
                    truncation=True,
                ).to(device)
                vision = self.model.get_image_features(pixel_values=inputs["pixel_values"])
                words = {key: inputs[key] for key in ("input_ids", "attention_mask") if key in inputs}
                for rows, features in zip(towers, (vision, self.model.get_text_features(**words)), strict=True):
                    # transformers 5 gives an output object, transformers 4 gave the tensor.
                    rows.append(numpy32(getattr(features, "pooler_output", features)))
        return np.concatenate(towers[0]), np.concatenate(towers[1])

    def collect(
        self,
        images: Sequence[Any],
        texts: Sequence[str],
        *,
        batch_size: int = 32,
        ids: Sequence[str] | None = None,
        progress: bool | None = None,
    ) -> LossPairs:
        """Embed images and texts, and return the images' embeddings with their symmetric InfoNCE in nats."""
        anchors, partners = self.embed(images, texts, batch_size=batch_size, progress=progress)
        temperature = float(np.exp(-float(self.model.logit_scale.detach())))
        return self._pairs(anchors, partners, ids, loss="symmetric_info_nce", temperature=temperature)


def _require_partners(anchors: Sequence[Any], partners: Sequence[Any]) -> None:
    if len(anchors) != len(partners) or len(anchors) < 2:
        raise DataError(
            f"there must be one partner per anchor and at least two pairs, got {len(anchors)} anchors and "
            f"{len(partners)} partners"
        )
