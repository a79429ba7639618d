"""Load and run transformers models for the loss loaders: without side effects, with padding, pooling and seeds."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from probes.errors import DataError, EncoderError, EncoderNotFoundError

if TYPE_CHECKING:
    import torch

Pooling = Literal["first", "mean", "last"]
_NOT_WEIGHTS = frozenset({"AutoTokenizer", "AutoProcessor", "AutoImageProcessor", "AutoFeatureExtractor"})


def load_pretrained(
    classes: Sequence[str], source: str | Path, revision: str | None, allow_download: bool
) -> tuple[Any, ...]:
    """Load `source` with each named transformers class, weights from safetensors only.

    `source` is a local directory, or a Hugging Face id that then needs a `revision` (commit hash or tag).
    Nothing is downloaded unless `allow_download` is set and HF_HUB_OFFLINE is not. Raises EncoderNotFoundError if the
    files are not found, EncoderError for an id without revision.
    """
    import transformers

    local = Path(source).is_dir()
    if not local and revision is None:
        raise EncoderError(
            f"model {str(source)!r} must be a local directory, or a Hugging Face id with a revision; "
            "there is no such directory here and no revision was given: pass revision=<commit hash>"
        )
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    options = {"local_files_only": local or offline or not allow_download, "revision": revision}
    try:
        return tuple(
            getattr(transformers, name).from_pretrained(
                str(source), **options, **({} if name in _NOT_WEIGHTS else {"use_safetensors": True})
            )
            for name in classes
        )
    except OSError as error:
        hint = (
            "HF_HUB_OFFLINE is set, so only cached files are used"
            if offline
            else "fetch it first, or pass allow_download=True"
        )
        where = "directory" if local else f"revision {revision} of the Hugging Face cache"
        raise EncoderNotFoundError(
            f"model {str(source)!r} must have its configuration, vocabulary and *.safetensors weights "
            f"in the {where}: {error}; {hint}"
        ) from error


def model_identity(model: Any) -> dict[str, Any]:
    """Return class, name and revision of the model, as far as its config knows them, for the record of a loss."""
    name = str(getattr(model.config, "name_or_path", "") or "")
    return {
        "model_class": type(model).__name__,
        # The path of a directory means nothing on other machines, but its last part may.
        "model": Path(name).name if Path(name).is_dir() else name or None,
        "revision": getattr(model.config, "_commit_hash", None),
    }


class Pretrained:
    """The base of all loaders of a transformers model, which reads the model from files and reports the settings.

    A subclass is a dataclass of the model, its tokenizer or processor, and the settings. `classes` names the
    transformers classes to load for the first fields, in their order. `setting_names` names the fields that the
    provenance holds beside the model's identity.
    """

    classes: ClassVar[tuple[str, ...]]
    setting_names: ClassVar[tuple[str, ...]] = ()
    model: Any

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, revision: str | None = None, allow_download: bool = False, **settings: Any
    ) -> Self:
        """Return the loader of a directory or a pinned Hugging Face id; rules and errors as `load_pretrained`."""
        return cls(*load_pretrained(cls.classes, source, revision, allow_download), **settings)

    def settings(self) -> dict[str, Any]:
        """Return the identity of the model and the settings as JSON values."""
        return {**model_identity(self.model), **{name: getattr(self, name) for name in self.setting_names}}


@contextmanager
def inference(*models: Any) -> Iterator[torch.device]:
    """Set models to evaluation mode without gradients for the block, and give the device; restore the modes after."""
    import torch

    modes = [model.training for model in models]
    try:
        for model in models:
            model.eval()
        with torch.no_grad():
            yield next(models[0].parameters()).device
    finally:
        for model, mode in zip(models, modes, strict=True):
            model.train(mode)


def sample_rng(seed: int, draw: int, content: bytes) -> np.random.Generator:
    """Return a generator that depends on seed, draw and content of the sample only, so batches cannot change a mask."""
    digest = hashlib.blake2b(content, digest_size=16).digest()
    return np.random.default_rng([seed, draw, int.from_bytes(digest, "little")])


def require_draws(draws: int, fraction: float, name: str) -> None:
    """Raise DataError unless draws >= 1 and 0 < fraction < 1."""
    if draws < 1:
        raise DataError(f"draws must be at least 1, got {draws}")
    if not 0.0 < fraction < 1.0:
        raise DataError(f"{name} must lie between 0 and 1, got {fraction}")


def token_ids(tokenizer: Any, texts: Sequence[str], max_tokens: int, first: int) -> list[list[int]]:
    """Return token ids with special tokens, cut at `max_tokens`; raise DataError for a text without any token."""
    for offset, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"sample {first + offset} must be a string, got {type(text).__name__}")
    encoded = tokenizer(list(texts), truncation=True, max_length=max_tokens, verbose=False)["input_ids"]
    rows = [list(map(int, row)) for row in encoded]
    for offset, row in enumerate(rows):
        if not row:
            raise DataError(f"text of sample {first + offset} has no tokens; leave empty texts out")
    return rows


def ordinary_places(tokenizer: Any, row: Sequence[int], number: int) -> list[int]:
    """Return the places of the tokens of a row that are not special; raise DataError if sample `number` has none."""
    special = set(tokenizer.all_special_ids)
    places = [place for place, token in enumerate(row) if token not in special]
    if not places:
        raise DataError(f"text of sample {number} has no token to mask; leave empty texts out")
    return places


def require_mask_token(tokenizer: Any) -> None:
    """Raise DataError unless the tokenizer has a mask token."""
    if tokenizer.mask_token_id is None:
        raise DataError("the tokenizer must have a mask token, this one has none; use the tokenizer of a masked model")


def pad(rows: Sequence[Sequence[int]], fill: int, device: torch.device) -> torch.Tensor:
    """Return rows of unequal length as one (b, longest) int64 tensor, filled on the right."""
    import torch

    width = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], device=device)


def attention(rows: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """Return the (b, longest) int64 attention mask that goes with `pad`, which is 1 on tokens and 0 on filling."""
    return pad([[1] * len(row) for row in rows], 0, device)


def pool_tokens(hidden: torch.Tensor, mask: torch.Tensor, how: Pooling) -> NDArray[np.float32]:
    """Return the hidden states (b, t, d) pooled to (b, d): the first or last token, or the mean over all tokens."""
    import torch

    if how == "first":
        pooled = hidden[:, 0]
    elif how == "last":
        pooled = hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(dim=1) - 1]
    elif how == "mean":
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
    else:
        raise DataError(f"pooling must be 'first', 'mean' or 'last', got {how!r}")
    return numpy32(pooled)


def numpy32(tensor: torch.Tensor) -> NDArray[np.float32]:
    """Return the tensor as a float32 array on the CPU."""
    array: NDArray[np.float32] = tensor.detach().float().cpu().numpy()
    return array


def mean_token_loss(logits: torch.Tensor, labels: torch.Tensor) -> NDArray[np.float64]:
    """Return the mean cross-entropy (nats) per row over positions whose label is not -100.

    logits: (b, t, v). labels: (b, t).
    """
    import torch

    counted = labels != -100
    # Only the counted positions go through the softmax: the vocabulary is the widest axis there is.
    losses = torch.nn.functional.cross_entropy(logits[counted].float(), labels[counted], reduction="none").double()
    rows = counted.nonzero()[:, 0]
    total = torch.zeros(len(labels), dtype=torch.float64, device=labels.device).index_add_(0, rows, losses)
    mean: NDArray[np.float64] = (total / counted.sum(dim=1)).cpu().numpy()
    return mean
