"""Export encoders to directories that serve without torch and without the original files, and read them back.

    encoder.safetensors  tokenizer.json  check.safetensors  bundle.json

`bundle.json` holds the spec, heads and epsilon, and the SHA-256 of each other file. What makes it *that* encoder is not
in the bundle: the spec of the probe has the digests of the weights that serve and of the tokenizer.
`check.safetensors` holds the float32 features of `CHECK_TEXTS`, so that a machine whose arithmetic spoils them is
noticed when it loads, not in its decisions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from probes.atomic_write import replace_directory
from probes.bounded.files import BoundedFileError, parse_json, read_bounded
from probes.bounded.text import fields_fault, kind_of, os_fault
from probes.encoders.files import CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE, check_files, is_readable
from probes.encoders.onnx_runtime import OnnxRuntime
from probes.encoders.quantise import export_weights
from probes.encoders.spec import EncoderSpec, FloatArray
from probes.encoders.tokens import PromptTokenizer
from probes.encoders.weights import EncoderWeights, Tensors
from probes.errors import EncoderDigestError, EncoderError, EncoderNotFoundError

TENSORS_FILE, CHECK_FILE, BUNDLE_FILE = "encoder.safetensors", "check.safetensors", "bundle.json"
FILES = (TENSORS_FILE, TOKENIZER_FILE, CHECK_FILE)

_SCHEMA = 2

#: Most bytes of each file that are read; the weights of BERT-large in float32 are 1.3 GB.
MOST_BYTES: Mapping[str, int] = {
    WEIGHTS_FILE: 4 << 30,
    TENSORS_FILE: 4 << 30,
    TOKENIZER_FILE: 64 << 20,
    CHECK_FILE: 16 << 20,
    CONFIG_FILE: 1 << 20,
    BUNDLE_FILE: 1 << 20,
}

#: Written for this purpose: short and long, prose, code, figures, other scripts.
CHECK_TEXTS = (
    "What is the capital of Mongolia?",
    "def median(xs):\n    xs = sorted(xs)\n    return xs[len(xs) // 2]\nFix the even case and add a type hint.",
    "Eine Kiste wiegt 12,5 kg, drei Viertel davon sind Inhalt. Wie schwer ist die leere Kiste?",
    "次の文を英語に訳してください。電車は雪のために遅れています。",
    "Prove or refute: every bounded sequence of real numbers whose consecutive differences tend to zero converges. "
    "State which theorems you use, give a counterexample if there is one, and say what changes if the differences are "
    "summable. " * 4,
)


@dataclass(frozen=True, eq=False)
class Bundle:
    """Holds an exported encoder in memory: its spec, its weights and its tokenizer.

    Attributes:
        spec: which encoder it says it is.
        weights: all that its forward pass reads.
        tokenizer: contents of tokenizer.json.
        check_features: float32 features of `CHECK_TEXTS`, (n, d).

    Raises EncoderError if these do not fit together.
    """

    spec: EncoderSpec
    weights: EncoderWeights
    tokenizer: bytes
    check_features: FloatArray

    def __post_init__(self) -> None:
        weights, spec, check = self.weights, self.spec, self.check_features
        if (weights.halves, weights.int8) != (spec.halves, spec.is_int8):
            raise EncoderError(f"the weights must be of {spec.halves} half layers in {spec.precision}; they are not.")
        if spec.max_tokens > weights.positions:
            raise EncoderError(
                f"max_tokens must be {weights.positions} at most for this encoder, got {spec.max_tokens}."
            )
        shape = len(CHECK_TEXTS), len(spec.parts) * weights.hidden
        if check.dtype != np.float32 or check.shape != shape or not np.isfinite(check).all():
            raise EncoderError(f"reference features must be finite float32 of shape {shape}, got {check.shape}.")

    @cached_property
    def contents(self) -> Mapping[str, bytes]:
        """Return the contents of the bundle's directory by file name; the same encoder gives the same bytes."""
        contents = {
            TENSORS_FILE: save(dict(self.weights.tensors)),
            TOKENIZER_FILE: self.tokenizer,
            CHECK_FILE: save({"features": self.check_features}),
        }
        about = {
            "schema": _SCHEMA,
            # The files know nothing of what a text is read without.
            "encoder": replace(self.spec, asides=None).to_dict(),
            "heads": self.weights.heads,
            "epsilon": self.weights.epsilon,
            "files": {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()},
        }
        return contents | {BUNDLE_FILE: json.dumps(about, indent=2).encode()}

    def save(self, path: Path, *, whatever_is_there: bool = False) -> None:
        """Write the bundle to a directory, all of it or nothing. Raises ArtifactError if that cannot be done.

        whatever_is_there: replace also a directory that holds other files than those of a bundle.
        """
        # model.onnx is what bundles of older versions hold.
        may_hold = None if whatever_is_there else (*FILES, BUNDLE_FILE, "model.onnx")
        replace_directory(path, self.contents, may_hold=may_hold)

    def of(self, spec: EncoderSpec, place: str) -> Bundle:
        """Return the bundle as encoder `spec` if it has the digests that `spec` names.

        place: where the bundle is from, for messages. Raises EncoderDigestError if it is of another encoder.
        """
        wanted, own = (replace(one.pinned(), asides=None) for one in (spec, self.spec))
        # The weights of both runtimes are the same.
        if own.identity != wanted.identity and not own.differs_in_rounding_only(wanted):
            raise EncoderDigestError(
                f"{place} must hold encoder {spec.identity[:12]}... ({spec.model_id}, {spec.precision}), it holds "
                f"{self.spec.identity[:12]}... ({self.spec.model_id}, {self.spec.precision}); export the one asked "
                f"for with `elle export-encoder`, or refit the probe."
            )
        digests = (
            ("tokenizer", hashlib.sha256(self.tokenizer).hexdigest(), wanted.tokenizer_sha256),
            ("weights", self.weights.digest, wanted.tensors_sha256),
        )
        for name, found, expected in digests:
            if found != expected:
                raise EncoderDigestError(
                    f"{place} must hold the {name} that the spec of {spec.model_id} names, digest "
                    f"{(expected or 'none')[:12]}, it holds {found[:12]}; export it again from the original files."
                )
        return replace(self, spec=spec)


def read_weights(spec: EncoderSpec, source: Path, *formats: bool) -> list[EncoderWeights]:
    """Return the weights of `spec` from its files in `source`, once for each of `formats`: int8 if true, else float32.

    Raises EncoderError for an architecture that cannot be exported or files that cannot be read, EncoderDigestError for
    files that are not those of `spec`.
    """
    check_files(spec, source)
    contents = {name: _read(source / name) for name in (WEIGHTS_FILE, CONFIG_FILE)}
    for name, wanted in ((WEIGHTS_FILE, spec.weights_sha256), (CONFIG_FILE, spec.pinned().config_sha256)):
        # Of what was read, because the file may have changed since.
        if wanted is not None and hashlib.sha256(contents[name]).hexdigest() != wanted:
            raise EncoderDigestError(f"{source / name} must have SHA-256 {wanted[:12]}..., it was changed just now.")
    config = _object(source / CONFIG_FILE, contents[CONFIG_FILE])
    tensors = {name: np.asarray(value, np.float32) for name, value in _tensors(source / WEIGHTS_FILE, contents).items()}
    return [export_weights(tensors, config, spec.halves, int8=int8) for int8 in formats]


def build_bundle(spec: EncoderSpec, source: Path) -> Bundle:
    """Export the encoder whose files are in `source`; the same files give the same weights, whatever the machine.

    Raises what `read_weights` raises, EncoderDigestError if the weights are not the ones that `spec` names, and
    EncoderError if `onnx` or `onnxruntime`, which compute the reference features, is not installed.
    """
    weights, reference = read_weights(spec, source, spec.is_int8, False)
    wanted = spec.pinned().tensors_sha256
    if spec.is_int8 and wanted not in (None, weights.digest):
        raise EncoderDigestError(
            f"the weights exported for {spec.model_id} must have digest {str(wanted)[:12]}, got {weights.digest[:12]}: "
            f"this version rounds them otherwise than the one that the probe was fitted with. Fit it again."
        )
    tokenizer = _read(source / TOKENIZER_FILE)
    tokenize, run = PromptTokenizer(tokenizer, spec.max_tokens, spec.truncation), OnnxRuntime(reference, spec.parts)
    return Bundle(spec, weights, tokenizer, np.stack([run(tokenize(text)) for text in CHECK_TEXTS]))


def read_bundle(path: Path) -> Bundle:
    """Read a bundle from a directory; file sizes are bounded, and every digest, tensor and number is checked.

    The bundle is whole, but it may be of another encoder than it says, which `Bundle.of` checks. Raises
    EncoderNotFoundError, EncoderDigestError, or EncoderError, which names the file and what is wrong with it.
    """
    absent = [name for name in (*FILES, BUNDLE_FILE) if not is_readable(path / name)]
    if absent:
        raise EncoderNotFoundError(f"{path} has no {', '.join(absent)} that can be read")
    about = _object(path / BUNDLE_FILE, _read(path / BUNDLE_FILE))
    if about.get("schema") != _SCHEMA:
        schema = about.get("schema")
        raise EncoderError(f"{path / BUNDLE_FILE} must have schema {_SCHEMA}, got {schema!r}; export it again.")
    contents = {name: _read(path / name) for name in FILES}
    try:
        digests, heads, epsilon = dict(about["files"]), about["heads"], about["epsilon"]
        spec = EncoderSpec.from_dict(about["encoder"])
    except (ValueError, KeyError, TypeError) as error:
        raise EncoderError(
            f"{path / BUNDLE_FILE} cannot be read: {fields_fault(error)}; export the encoder again."
        ) from error
    for name in FILES:
        if hashlib.sha256(contents[name]).hexdigest() != digests.get(name):
            raise EncoderDigestError(f"{path / name} differs from the SHA-256 in {BUNDLE_FILE}; export it again.")
    check = _tensors(path / CHECK_FILE, contents)
    if check.keys() != {"features"}:
        raise EncoderError(f"{path / CHECK_FILE} must hold one tensor `features`; export it again.")
    try:
        weights = EncoderWeights(_tensors(path / TENSORS_FILE, contents), heads, epsilon, spec.halves, spec.is_int8)
        return Bundle(spec, weights, contents[TOKENIZER_FILE], check["features"])
    except EncoderError as error:
        raise EncoderError(f"{path} is no exported encoder: {error} Export it again.") from error


def _read(file: Path) -> bytes:
    try:
        return read_bounded(file, MOST_BYTES[file.name])
    except (OSError, BoundedFileError) as error:
        raise EncoderError(f"{file} cannot be read: {os_fault(error)}.") from error


def _object(file: Path, data: bytes) -> dict[str, Any]:
    try:
        found = parse_json(data)
    except BoundedFileError as error:
        raise EncoderError(f"{file} cannot be read: {error}.") from error
    if not isinstance(found, dict):
        raise EncoderError(f"{file} must hold a JSON object, got {kind_of(found)}.")
    return found


def _tensors(file: Path, contents: Mapping[str, bytes]) -> Tensors:
    try:
        found: Tensors = load(contents[file.name])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise EncoderError(f"{file} must be a safetensors file of plain numbers: {error}.") from error
    return found
