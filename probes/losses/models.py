"""What the transformers loaders share: finding a model, running it without side effects, padding, pooling,
seeding."""

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
    Nothing is downloaded unless `allow_download` is set and HF_HUB_OFFLINE is not. Raises
    EncoderNotFoundError where the files are not to be had, EncoderError for an id without revision.
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


def identity(model: Any) -> dict[str, Any]:
    """Which model this is, for the provenance: class, name and revision as far as its config knows them."""
    name = str(getattr(model.config, "name_or_path", "") or "")
    return {
        "model_class": type(model).__name__,
        # A directory of this machine says nothing elsewhere; its last part does.
        "model": Path(name).name if Path(name).is_dir() else name or None,
        "revision": getattr(model.config, "_commit_hash", None),
    }


class Pretrained:
    """What the loaders of a transformers model share: loading it from its files, and telling its settings.

    A subclass names in `classes` what transformers has to load, in the order of its constructor's first arguments, and
    in `setting_names` the attributes that its provenance holds beside the model's identity.
    """

    classes: ClassVar[tuple[str, ...]]
    setting_names: ClassVar[tuple[str, ...]] = ()
    model: Any

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, revision: str | None = None, allow_download: bool = False, **settings: Any
    ) -> Self:
        """Load from a directory or a pinned Hugging Face id; `load_pretrained` has the rules and the errors."""
        return cls(*load_pretrained(cls.classes, source, revision, allow_download), **settings)

    def settings(self) -> dict[str, Any]:
        """Return model and settings as JSON values."""
        return {**identity(self.model), **{name: getattr(self, name) for name in self.setting_names}}


@contextmanager
def inference(*models: Any) -> Iterator[torch.device]:
    """Evaluation mode without gradients for the block; the modes are put back afterwards. Gives the
    device."""
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
    """A generator that depends on seed, draw and the sample's content only, so batches cannot change a
    mask."""
    digest = hashlib.blake2b(content, digest_size=16).digest()
    return np.random.default_rng([seed, draw, int.from_bytes(digest, "little")])


def require_draws(draws: int, fraction: float, name: str) -> None:
    """Raise DataError unless draws >= 1 and 0 < fraction < 1."""
    if draws < 1:
        raise DataError(f"draws must be at least 1, got {draws}")
    if not 0.0 < fraction < 1.0:
        raise DataError(f"{name} must lie between 0 and 1, got {fraction}")


def token_ids(tokenizer: Any, texts: Sequence[str], max_tokens: int, first: int) -> list[list[int]]:
    """Token ids with special tokens, cut at `max_tokens`; DataError names a text without any token."""
    for offset, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"sample {first + offset} must be a string, got {type(text).__name__}")
    encoded = tokenizer(list(texts), truncation=True, max_length=max_tokens, verbose=False)["input_ids"]
    rows = [list(map(int, row)) for row in encoded]
    for offset, row in enumerate(rows):
        if not row:
            raise DataError(f"text of sample {first + offset} has no tokens; leave empty texts out")
    return rows


def pad(rows: Sequence[Sequence[int]], fill: int, device: torch.device) -> torch.Tensor:
    """Rows of unequal length as one (b, longest) int64 tensor, filled on the right."""
    import torch

    width = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], device=device)


def attention(rows: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """The (b, longest) int64 mask that goes with `pad`: 1 on tokens, 0 on filling."""
    return pad([[1] * len(row) for row in rows], 0, device)


def pool(hidden: torch.Tensor, mask: torch.Tensor, how: Pooling) -> NDArray[np.float32]:
    """(b, t, d) hidden states to (b, d): the first position, the last unpadded one, or the mean of the
    unpadded."""
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
    """The tensor as a float32 array on the CPU."""
    array: NDArray[np.float32] = tensor.detach().float().cpu().numpy()
    return array


def mean_token_loss(logits: torch.Tensor, labels: torch.Tensor) -> NDArray[np.float64]:
    """Mean cross-entropy (nats) per row over positions whose label is not -100; logits (b, t, v), labels (b,
    t)."""
    import torch

    counted = labels != -100
    # Only the counted positions go through the softmax: the vocabulary is the widest axis there is.
    losses = torch.nn.functional.cross_entropy(logits[counted].float(), labels[counted], reduction="none").double()
    rows = counted.nonzero()[:, 0]
    total = torch.zeros(len(labels), dtype=torch.float64, device=labels.device).index_add_(0, rows, losses)
    mean: NDArray[np.float64] = (total / counted.sum(dim=1)).cpu().numpy()
    return mean
