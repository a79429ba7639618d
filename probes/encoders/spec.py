"""Say which frozen encoder turns text into features (`EncoderSpec`) and what every runtime of it can do (`Encoder`).

The spec says *which* weights by SHA-256 and in which precision they are run, because both move the features. Where the
files come from does not matter (`files`). `torch_runtime` is the reference, `exported` is what serves, `load` chooses.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import MISSING, asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from probes.bounded.files import BoundedFileError, parse_json, read_bounded, shown
from probes.bounded.text import did_you_mean, kind_of, os_fault, path_fault
from probes.digests import json_digest
from probes.encoders.tokens import TRUNCATIONS
from probes.errors import EncoderError

FloatArray = npt.NDArray[np.float32]

#: Arithmetics of the forward pass, and what an encoder's identity says of each: other arithmetic is another encoder,
#: which probes, exported encoders and cached features go by. The second and third compute the same integers and round
#: the numbers between them differently (docs/decisions/0006-serving-encoder.md says how far apart that is).
PRECISIONS: Mapping[str, str] = {
    "float32": "float32",
    "int8": "int8, sums of eight products in 16 bits",
    "int8-onnxruntime": "int8, sums of eight products in 16 bits, by ONNX Runtime",
}

#: Most of each that a spec may ask for: what a file says must not become an allocation of any size.
MOST_TOKENS, MOST_PARTS, MOST_SPEC_BYTES = 32_768, 16, 1 << 20


@dataclass(frozen=True)
class EncoderSpec:
    """Says which encoder makes the features, and which of its hidden states they are taken from.

    Equal identities of precision `int8` give the same bits everywhere.

    The other precisions leave the rounding to libraries, whose last bits depend on their version and the processor.

    Attributes:
        model_id: Hugging Face id. Names the place to look, not the identity.
        revision: Hugging Face commit the digests were taken from.
        weights_sha256: SHA-256 of `model.safetensors`, lower-case hexadecimal.
        tokenizer_sha256: SHA-256 of `tokenizer.json`, in the same form: other tokens are other features.
        pooling: what becomes the features, set side by side: `mean@3` is the mean over all tokens of hidden state
            3, `max@3` the maximum, `cls@3` the first token; 0 is the embedding layer's output, L the last of L
            transformer layers, and 2.5 lies within the third, after its attention and before its feed-forward
            network. What comes after the highest one named is not run.
        max_tokens: of a longer prompt only this many tokens are read, special tokens included.
        truncation: which ones: `head`, its beginning, or `head_tail`, its beginning and its end in equal parts.
        precision: arithmetic of the forward pass. `float32`; or `int8`: weights with one scale per output channel,
            activations with one scale per token, and sums of eight products that fit in 16 bits, computed by our own
            library; or `int8-onnxruntime`: the same by ONNX Runtime.
        config_sha256: SHA-256 of `config.json`, which says heads and epsilon. None only in specs of older versions.
        tensors_sha256: digest of the weights that serve (`EncoderWeights.digest`), for the precisions in int8: by it an
            exported encoder is recognised without its original files. None: only the original files will do.
        asides: digest of the gate that leaves out thanks, flattery and the like (`probes.asides`); None reads all.

    Raises EncoderError for a field that is none of these.
    """

    model_id: str
    revision: str
    weights_sha256: str
    tokenizer_sha256: str
    pooling: tuple[str, ...]
    max_tokens: int
    truncation: str = "head_tail"
    precision: str = "float32"
    config_sha256: str | None = None
    tensors_sha256: str | None = None
    asides: str | None = None

    def __post_init__(self) -> None:
        for name, pattern in (("model_id", r"[\w.-]{1,96}(/[\w.-]{1,96})?"), ("revision", r"[\w.-]{1,96}")):
            _match(name, getattr(self, name), pattern, "a Hugging Face id" if name == "model_id" else "a commit or tag")
        for name, allowed in (("precision", PRECISIONS), ("truncation", TRUNCATIONS)):
            if getattr(self, name) not in allowed:
                raise EncoderError(f"{name} must be one of {', '.join(allowed)}, got {_short(getattr(self, name))}.")
        parts = self.pooling
        wrong = [part for part in parts if not re.fullmatch(r"(mean|max|cls)@(0|[1-9][0-9]{0,2})(\.5)?", str(part))]
        if wrong or not 1 <= len(parts) <= MOST_PARTS or len(set(parts)) != len(parts):
            raise EncoderError(
                f"pooling must be 1 to {MOST_PARTS} distinct parts such as mean@3 or max@6, got {_short(list(parts))}."
            )
        if not isinstance(self.max_tokens, int) or not 8 <= self.max_tokens <= MOST_TOKENS:
            raise EncoderError(f"max_tokens must be 8 to {MOST_TOKENS}, got {_short(self.max_tokens)}.")
        for name in ("weights_sha256", "tokenizer_sha256", "config_sha256", "tensors_sha256", "asides"):
            if getattr(self, name) is not None or name in ("weights_sha256", "tokenizer_sha256"):
                _match(name, getattr(self, name), "[0-9a-f]{64}", "64 lower-case hexadecimal digits")

    @property
    def parts(self) -> tuple[tuple[str, int], ...]:
        """The parts of `pooling` as (kind, number of half layers run), for example (max, 5) for `max@2.5`."""
        return tuple((kind, round(2 * float(layer))) for kind, _, layer in (p.partition("@") for p in self.pooling))

    @property
    def halves(self) -> int:
        """The number of half layers that are run, which is the highest one of `parts`."""
        return max(halves for _, halves in self.parts)

    @property
    def is_int8(self) -> bool:
        """True if matrix products are computed in int8, by whichever runtime."""
        return self.precision != "float32"

    @cached_property
    def identity(self) -> str:
        """The SHA-256 (hex) over everything that changes the features. The place of the files is not part of it."""
        # Digests that a spec does not have are left out: so specs of older versions keep their identity.
        relevant = {k: v for k, v in self.to_dict().items() if k not in {"model_id", "revision"}}
        relevant["precision"] = PRECISIONS[self.precision]
        return json_digest(relevant)

    def finite(self, features: FloatArray) -> FloatArray:
        """Return features that this encoder computed; raise EncoderError if one of them is NaN or infinite."""
        if not np.isfinite(features).all():
            raise EncoderError(f"features must be finite, {self.model_id} gave NaN or infinity.")
        return features

    def to_dict(self) -> dict[str, object]:
        """Return the spec as plain JSON values for artifacts; digests that it does not have are left out."""
        return {k: v for k, v in asdict(self).items() if v is not None} | {"pooling": list(self.pooling)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the spec that `to_dict` described. Raises EncoderError for unknown, missing or mistyped fields."""
        known = {f.name for f in fields(cls)}
        if unknown := set(data) - known:
            raise EncoderError(
                f"encoder spec has unknown fields {shown(', '.join(sorted(unknown)), 300)}; known are "
                f"{', '.join(sorted(known))}."
            )
        needed = {f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}
        if missing := needed - set(data):
            raise EncoderError(f"encoder spec is incomplete, it must have {', '.join(sorted(missing))}.")
        if not isinstance(data.get("pooling"), list):
            raise EncoderError(
                f"encoder spec is incomplete or mistyped: pooling must be a list, got {kind_of(data.get('pooling'))}."
            )
        try:
            return cls(**{**data, "pooling": tuple(data["pooling"])})
        except (KeyError, TypeError, ValueError) as error:
            raise EncoderError(f"encoder spec is incomplete or mistyped: {error}.") from error

    def differs_in_rounding_only(self, other: EncoderSpec) -> bool:
        """Return whether both specs are one encoder in int8 that different runtimes compute."""
        return (
            self.is_int8
            and other.is_int8
            and self.precision != other.precision
            and replace(other.pinned(), precision=self.precision).identity == self.pinned().identity
        )

    def pinned(self) -> Self:
        """Return the spec with the digests that older versions left out, if it is a built-in encoder."""
        found = self
        for known in BUILTIN_SPECS.values():
            if known.weights_sha256 == self.weights_sha256:
                found = replace(found, config_sha256=found.config_sha256 or known.config_sha256)
                if (known.is_int8, known.halves, known.config_sha256) == (
                    self.is_int8,
                    self.halves,
                    found.config_sha256,
                ):
                    found = replace(found, tensors_sha256=found.tensors_sha256 or known.tensors_sha256)
        return found


def _match(name: str, value: object, pattern: str, wanted: str) -> None:
    if not isinstance(value, str) or not re.fullmatch(pattern, value, re.ASCII):
        raise EncoderError(f"{name} must be {wanted}, got {_short(value)}.")


def _short(value: object) -> str:
    return shown(repr(value))


#: The reference: the real all-MiniLM-L6-v2, its third layer (docs/decisions/0011-default-on-many-kinds.md says why).
MINILM_L6_FLOAT32 = EncoderSpec(
    model_id="sentence-transformers/all-MiniLM-L6-v2",
    revision="c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
    weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    tokenizer_sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    pooling=("mean@3", "max@3"),
    max_tokens=256,
    config_sha256="953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
)

#: The default, what serves: the same in int8 (docs/decisions/0006-serving-encoder.md says what that costs and buys).
MINILM_L6 = replace(
    MINILM_L6_FLOAT32,
    precision="int8",
    tensors_sha256="fb0add4780137475429e7d6121b59bc40e30a90d462fbf2808f96c937f6551cc",
)

#: The same where our own library does not run: another rounding, and so another encoder.
MINILM_L6_ONNXRUNTIME = replace(MINILM_L6, precision="int8-onnxruntime")

#: The same without thanks, flattery and the like: what the probe of the embedded default policy reads.
MINILM_L6_WITHOUT_ASIDES = replace(MINILM_L6, asides="b422101b821839fa150ebff956ad110937b6b8c452ecf2209992b6aa5036b407")

#: The default before: half a layer less. The example probe of Mixtral and GPT-4 Turbo reads it.
MINILM_L6_HALF_LESS = replace(
    MINILM_L6,
    pooling=("mean@2.5", "max@2.5"),
    tensors_sha256="a019634f255b46274c74b4ed22248f862a9f03483f75da1f626ebfdee4322478",
)

BUILTIN_SPECS: Mapping[str, EncoderSpec] = {
    "minilm-l6": MINILM_L6,
    "minilm-l6-onnxruntime": MINILM_L6_ONNXRUNTIME,
    "minilm-l6-float32": MINILM_L6_FLOAT32,
    "minilm-l6-without-asides": MINILM_L6_WITHOUT_ASIDES,
    "minilm-l6-without-asides-onnxruntime": replace(MINILM_L6_WITHOUT_ASIDES, precision="int8-onnxruntime"),
    "minilm-l6-without-asides-float32": replace(MINILM_L6_FLOAT32, asides=MINILM_L6_WITHOUT_ASIDES.asides),
    "minilm-l6-2.5": MINILM_L6_HALF_LESS,
    "minilm-l6-2.5-onnxruntime": replace(MINILM_L6_HALF_LESS, precision="int8-onnxruntime"),
    "minilm-l6-2.5-float32": replace(MINILM_L6_FLOAT32, pooling=("mean@2.5", "max@2.5")),
}


class Encoder(Protocol):
    """The interface of what turns text into features.

    Implementations are thread-safe; no prompt's features depend on another's.
    """

    @property
    def spec(self) -> EncoderSpec:
        """Spec of this encoder."""
        ...

    @property
    def n_features(self) -> int:
        """The width d of the features."""
        ...

    def encode(self, text: str) -> FloatArray:
        """Return the features of one text, shape (d,), float32, finite."""
        ...


@runtime_checkable
class BatchEncoder(Encoder, Protocol):
    """An encoder that is faster with many prompts in one forward pass. It suits a GPU; on a CPU padding costs more.

    In a batch a prompt's features are those of `encode` up to rounding, not to the last bit.
    """

    @property
    def batch_tokens(self) -> int:
        """The most tokens of one forward pass, which are the number of prompts times the tokens of the longest."""
        ...

    def tokenize(self, text: str) -> Sequence[int]:
        """Return the token ids of a text, at least one. A text that cannot be encoded fails here, alone."""
        ...

    def encode_batch(self, prompts: Sequence[Sequence[int]]) -> FloatArray:
        """Return the features of n tokenized prompts, (n, d), float32, finite. Raises an error if one has none."""
        ...


@runtime_checkable
class HelpedEncoder(Encoder, Protocol):
    """An encoder that can use an idle core to speed up a lone forward pass, without slowing anything else down."""

    def use_idle_core(self) -> None:
        """Let an idle core help from now on; the features keep the same bits."""
        ...


def encode_all(
    encoder: Encoder,
    texts: Sequence[str],
    *,
    workers: int | None = None,
    on_done: Callable[[], None] | None = None,
) -> FloatArray:
    """Return the features of many texts, shape (n, d), each exactly as `encoder.encode` gives it alone.

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
    """Return the encoder spec that a person names: a built-in name, or the path of a JSON file of `to_dict`.

    Raises EncoderError naming what is known.
    """
    if text in BUILTIN_SPECS:
        return BUILTIN_SPECS[text]
    path = Path(text)
    if path.suffix == ".json" and path_fault(path) is None:
        try:
            data = parse_json(read_bounded(path, MOST_SPEC_BYTES))
        except (OSError, BoundedFileError) as error:
            raise EncoderError(f"{path} cannot be read as an encoder spec: {os_fault(error)}.") from error
        if not isinstance(data, dict):
            raise EncoderError(f"{path} must hold a JSON object, got {kind_of(data)}.")
        return EncoderSpec.from_dict(data)
    raise EncoderError(
        f"encoder must be one of {', '.join(BUILTIN_SPECS)} or the path of a .json spec, got {shown(text)!r}."
        f"{did_you_mean(text[:80], BUILTIN_SPECS)}"
    )
