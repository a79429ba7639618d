"""Text -> features by a frozen encoder: which one (`EncoderSpec`), and what every runtime of it can do (`Encoder`).

The spec says *which* weights by SHA-256 and in which precision they are run, because both move the features. Where the
files come from does not matter (`files`). `torch_runtime` is the reference, `exported` is what serves, `load` chooses.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from probes.encoders.tokens import TRUNCATIONS
from probes.errors import EncoderError

FloatArray = npt.NDArray[np.float32]

#: Number formats of the forward pass, and what an encoder's identity says of each: other arithmetic is another
#: encoder, which probes, exported encoders and cached features go by.
PRECISIONS: Mapping[str, str] = {"float32": "float32", "int8": "int8, sums of eight products in 16 bits"}


@dataclass(frozen=True)
class EncoderSpec:
    """Which encoder, and which features of it. Two equal specs give the same features up to float rounding.

    Attributes:
        model_id: Hugging Face id. Names the place to look, not the identity.
        revision: Hugging Face commit the digests were taken from.
        weights_sha256: SHA-256 of `model.safetensors`, lower-case hexadecimal.
        tokenizer_sha256: SHA-256 of `tokenizer.json`, likewise: other tokens are other features.
        pooling: what becomes the features, set side by side: `mean@3` is the mean over all tokens of hidden state
            3, `max@3` the maximum, `cls@3` the first token; 0 is the embedding layer's output, L the last of L
            transformer layers, and 2.5 lies within the third, after its attention and before its feed-forward
            network. What comes after the highest one named is not run.
        max_tokens: of a longer prompt only this many tokens are read, special tokens included.
        truncation: which ones: `head`, its beginning, or `head_tail`, its beginning and its end in equal parts.
        precision: number format of the forward pass. `float32`, or `int8`: weights with one scale per output channel,
            activations with one scale per token, and sums of eight products that fit in 16 bits.
    """

    model_id: str
    revision: str
    weights_sha256: str
    tokenizer_sha256: str
    pooling: tuple[str, ...]
    max_tokens: int
    truncation: str = "head_tail"
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name, allowed in (("precision", PRECISIONS), ("truncation", TRUNCATIONS)):
            if getattr(self, name) not in allowed:
                raise EncoderError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}.")
        wrong = [part for part in self.pooling if not re.fullmatch(r"(mean|max|cls)@(0|[1-9]\d{0,2})(\.5)?", part)]
        if wrong or not self.pooling or len(set(self.pooling)) != len(self.pooling):
            raise EncoderError(f"pooling must be distinct parts such as mean@3 or max@6, got {list(self.pooling)}.")
        if self.max_tokens < 8:
            raise EncoderError(f"max_tokens must be 8 or more, got {self.max_tokens}.")
        for name in ("weights_sha256", "tokenizer_sha256"):
            if not re.fullmatch("[0-9a-f]{64}", getattr(self, name)):
                raise EncoderError(f"{name} must be 64 lower-case hexadecimal digits.")

    @property
    def parts(self) -> tuple[tuple[str, int], ...]:
        """The parts of `pooling` as (kind, half layers run): (max, 5) for `max@2.5`."""
        return tuple((kind, round(2 * float(layer))) for kind, _, layer in (p.partition("@") for p in self.pooling))

    @cached_property
    def identity(self) -> str:
        """SHA-256 over everything that moves the features. Where the files came from is not part of it."""
        relevant = {k: v for k, v in self.to_dict().items() if k not in {"model_id", "revision"}}
        relevant["precision"] = PRECISIONS[self.precision]
        return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values, for artifacts."""
        return asdict(self) | {"pooling": list(self.pooling)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises EncoderError for unknown, missing or mistyped fields."""
        known = {f.name for f in fields(cls)}
        if unknown := set(data) - known:
            raise EncoderError(f"encoder spec has unknown fields {sorted(unknown)}; known are {sorted(known)}.")
        try:
            return cls(**{**data, "pooling": tuple(data["pooling"])})
        except (KeyError, TypeError, ValueError) as error:
            raise EncoderError(f"encoder spec is incomplete or mistyped: {error}.") from error


#: The reference: the real all-MiniLM-L6-v2, its middle layers (docs/decisions/0002-features.md says why).
MINILM_L6_FLOAT32 = EncoderSpec(
    model_id="sentence-transformers/all-MiniLM-L6-v2",
    revision="c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
    weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    tokenizer_sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    pooling=("mean@2.5", "max@2.5"),
    max_tokens=256,
)

#: The default, what serves: the same in int8 (docs/decisions/0006-serving-encoder.md says what that costs and buys).
MINILM_L6 = replace(MINILM_L6_FLOAT32, precision="int8")

BUILTIN_SPECS: Mapping[str, EncoderSpec] = {"minilm-l6": MINILM_L6, "minilm-l6-float32": MINILM_L6_FLOAT32}


class Encoder(Protocol):
    """Turns text into features. Implementations are thread-safe; one prompt's features never depend on another's."""

    @property
    def spec(self) -> EncoderSpec:
        """Which encoder this is."""
        ...

    @property
    def n_features(self) -> int:
        """Width d of the features."""
        ...

    def encode(self, text: str) -> FloatArray:
        """Features of one text, shape (d,), float32, finite."""
        ...


@runtime_checkable
class BatchEncoder(Encoder, Protocol):
    """An encoder whose hardware wants many prompts in one forward pass. A GPU's does; on a CPU padding loses.

    In a batch a prompt's features are those of `encode` up to rounding, not to the last bit.
    """

    @property
    def batch_tokens(self) -> int:
        """Most tokens of one forward pass, padding included: number of prompts times tokens of the longest."""
        ...

    def tokenize(self, text: str) -> Sequence[int]:
        """The token ids of a text, at least one. A text that cannot be encoded fails here, alone."""
        ...

    def encode_batch(self, prompts: Sequence[Sequence[int]]) -> FloatArray:
        """Features of n tokenized prompts, shape (n, d), float32, finite; an error where one of them has none."""
        ...


@runtime_checkable
class HelpedEncoder(Encoder, Protocol):
    """An encoder whose lone forward pass can go faster where a core would idle, at nobody's expense."""

    def use_idle_core(self) -> None:
        """From now on let such a core help; the features stay the same bits."""
        ...


def encode_all(
    encoder: Encoder,
    texts: Sequence[str],
    *,
    workers: int | None = None,
    on_done: Callable[[], None] | None = None,
) -> FloatArray:
    """Features of many texts, shape (n, d): each exactly as `encoder.encode` gives it alone.

    One text at a time per worker thread: on a CPU padding batches costs two to four times (docs/performance.md).
    `on_done` is called once per finished text, from the calling thread.
    """
    features = np.empty((len(texts), encoder.n_features), dtype=np.float32)
    with ThreadPoolExecutor(max_workers=workers or os.cpu_count() or 1) as pool:
        for row, value in enumerate(pool.map(encoder.encode, texts)):
            features[row] = value
            if on_done is not None:
                on_done()
    return features


def parse_spec(text: str) -> EncoderSpec:
    """An encoder spec from what a person types: a built-in name, or the path of a JSON file of `to_dict`.

    Raises EncoderError naming what is known.
    """
    if text in BUILTIN_SPECS:
        return BUILTIN_SPECS[text]
    path = Path(text)
    if path.suffix == ".json" and path.is_file():
        try:
            data = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise EncoderError(f"{path} must be JSON: {error}.") from error
        if not isinstance(data, dict):
            raise EncoderError(f"{path} must hold a JSON object, got {type(data).__name__}.")
        return EncoderSpec.from_dict(data)
    raise EncoderError(f"encoder must be one of {', '.join(BUILTIN_SPECS)} or the path of a .json spec, got {text!r}.")
