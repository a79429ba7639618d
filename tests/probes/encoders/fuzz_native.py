"""Give damaged encoder files to the C library, to find out whether it reads beyond its memory.

`test_fuzz_native.py` runs this under AddressSanitizer.

    python -m tests.probes.encoders.fuzz_native LIBRARY SEED COUNT

Every round is refused by an EncoderError or computes something; a read or write outside of an array ends the process.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from probes.encoders.bundle import BUNDLE_FILE, CHECK_TEXTS, FILES, TENSORS_FILE, Bundle, read_bundle
from probes.encoders.native_runtime import TARGETS, NativeRuntime
from probes.encoders.spec import EncoderSpec
from probes.errors import DataError, EncoderError
from tests.probes.encoders.small_bert import HIDDEN, PARTS, POSITIONS, VOCABULARY, small_weights

SPEC = EncoderSpec(
    "made/up", "main", "0" * 64, "0" * 64, ("mean@0", "cls@1", "mean@1.5", "max@2"), 64, precision="int8"
)
EXTREME = (
    0,
    1,
    -1,
    2,
    31,
    32,
    33,
    96,
    97,
    128,
    255,
    4096,
    32768,
    2**21 + 1,
    2**31 - 1,
    2**31,
    2**32,
    2**63 - 1,
    10**30,
)
FLOATS = (0.0, -1.0, 1e-300, 1e-12, 1e-3, 0.5, 1e30, float("inf"), float("nan"), "1e-12", None)


def spoiled_files(rng: random.Random, contents: dict[str, bytes]) -> dict[str, bytes]:
    """Return a bundle with one to three faults whose digests agree with themselves."""
    contents = dict(contents)
    tensors, about = dict(load(contents[TENSORS_FILE])), json.loads(contents[BUNDLE_FILE])
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(sorted(tensors))
        match rng.randrange(8):
            case 0:
                tensors[name] = spoiled_shape(rng, tensors[name])
            case 1:
                tensors[name] = tensors[name].astype(
                    rng.choice([np.int8, np.float16, np.float32, np.float64, np.int64])
                )
            case 2:
                del tensors[name]
            case 3:
                tensors[f"layer.{rng.randrange(4)}.extra"] = np.zeros(4, np.float32)
            case 4:
                other = rng.choice(sorted(tensors))
                tensors[name], tensors[other] = tensors[other], tensors[name]
            case 5:
                flat = tensors[name].copy().reshape(-1)
                flat[rng.randrange(len(flat))] = (
                    rng.choice([0, 127, -128]) if flat.dtype == np.int8 else rng.choice([0.0, np.inf, np.nan, 6e4])
                )
                tensors[name] = flat.reshape(tensors[name].shape)
            case 6:
                about["heads"] = rng.choice(EXTREME)
            case _:
                about["epsilon"] = rng.choice(FLOATS)
        if not tensors:
            break
    contents[TENSORS_FILE] = save({k: np.ascontiguousarray(v) for k, v in tensors.items()})
    if rng.random() < 0.2:
        at = rng.randrange(min(len(contents[TENSORS_FILE]), 4000))
        contents[TENSORS_FILE] = (
            contents[TENSORS_FILE][:at] + bytes([rng.randrange(256)]) + contents[TENSORS_FILE][at + 1 :]
        )
    about["files"] = {name: hashlib.sha256(contents[name]).hexdigest() for name in FILES}
    contents[BUNDLE_FILE] = json.dumps(about).encode()
    return contents


def spoiled_shape(rng: random.Random, array: np.ndarray) -> np.ndarray:
    """Return a spoiled shape: longer, shorter, turned, of another rank, or empty."""
    match rng.randrange(6):
        case 0:
            return np.concatenate([array, array[: rng.randint(1, len(array))]])
        case 1:
            return array[: rng.randrange(len(array))]
        case 2:
            return array.T
        case 3:
            return array.reshape(-1)
        case 4:
            return array[np.newaxis]
        case _:
            return array[..., : rng.randrange(1, array.shape[-1])]


def spoiled_model(rng: random.Random, run: NativeRuntime) -> None:
    """Return a model whose numbers no longer agree; what C cannot know, lengths of arrays, may only shrink."""
    model = run._model
    for _ in range(rng.randint(1, 2)):
        match rng.randrange(4):
            case 0:
                name, new = rng.choice(["hidden", "heads", "inner", "halves"]), number(rng)
                setattr(model, name, min(new, model.halves) if name == "halves" else new)
            case 1:
                name = rng.choice(["vocabulary", "longest"])
                setattr(model, name, min(number(rng), getattr(model, name)))
            case 2:
                layer = model.layer[rng.randrange(2)]
                product = getattr(layer, rng.choice(["query_key_value", "mixed", "wide", "narrow"]))
                setattr(product, rng.choice(["k", "n"]), number(rng))
            case _:
                layer = model.layer[rng.randrange(2)]
                part = rng.choice([model.embedded, layer.middle, layer.out])
                setattr(part, rng.choice(["gamma", "beta"]), None)


def number(rng: random.Random) -> int:
    return ctypes.c_int32(rng.choice(EXTREME) % 2**32).value


def call(rng: random.Random, run: NativeRuntime) -> None:
    """Call C with numbers of its own, past what Python checks."""
    ids = np.array([rng.randrange(VOCABULARY) for _ in range(rng.randint(1, POSITIONS))], np.int32)
    if rng.random() < 0.5:
        run._vocabulary, run._longest = 2**31, 2**31
        ids[rng.randrange(len(ids))] = number(rng)
    if rng.random() < 0.2:
        run._parts[0].halves, run._parts[0].kind = number(rng), number(rng)
    run(ids.tolist())


def round_of(rng: random.Random, contents: dict[str, bytes], library: Path, folder: Path) -> str:
    """Return what became of one spoiled encoder: who refused it, or that it was computed."""
    whole = rng.random() < 0.4
    for name, data in (contents if whole else spoiled_files(rng, contents)).items():
        (folder / name).write_bytes(data)
    try:
        weights = read_bundle(folder).weights
    except EncoderError:
        return "refused when read"
    try:
        run = NativeRuntime(weights, PARTS, rng.choice(TARGETS), library)
    except EncoderError:
        return "refused when loaded"
    if whole:
        spoiled_model(rng, run)
    try:
        call(rng, run)
    except (EncoderError, DataError):
        return "refused when called"
    return "computed"


def main(library: Path, seed: int, count: int) -> Counter[str]:
    """Run rounds, and print what became of them."""
    rng = random.Random(seed)
    check = np.zeros((len(CHECK_TEXTS), len(SPEC.parts) * HIDDEN), np.float32)
    contents = dict(Bundle(SPEC, small_weights(), b"{}", check).contents)
    with tempfile.TemporaryDirectory() as folder:
        return Counter(round_of(rng, contents, library, Path(folder)) for _ in range(count))


if __name__ == "__main__":
    found: Any = main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    print(json.dumps(found))
