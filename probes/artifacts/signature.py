"""Sign artifacts with Ed25519, in a file beside them. Only this needs the package `cryptography`."""

from __future__ import annotations

from pathlib import Path

from probes.atomic_write import write_file
from probes.bounded.files import read_bounded
from probes.errors import ArtifactSignatureError, DataError

SIGNATURE = "probe.sig"

#: Of the file; a signature is 128 digits.
_MOST_BYTES = 1024


def signature_note(old: Path) -> tuple[str, ...]:
    """Return what to tell who made a new version of a probe: that it lacks the signature of the old one, if it had one.

    old: the folder of the old version.
    """
    return ("the new version is not signed; sign it again",) if (old / SIGNATURE).exists() else ()


def make_signature(root: Path, message: bytes, private_key: bytes) -> None:
    """Write probe.sig, the 64 bytes of the Ed25519 signature of `message` in hexadecimal."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    _check_length("private_key", private_key)
    signature = Ed25519PrivateKey.from_private_bytes(private_key).sign(message)
    write_file(root / SIGNATURE, signature.hex().encode() + b"\n")


def check_signature(root: Path, message: bytes, public_key: bytes) -> None:
    """Raise ArtifactSignatureError unless probe.sig is a signature of `message` by this key."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    _check_length("public_key", public_key)
    file = root / SIGNATURE
    if not file.is_file():
        raise ArtifactSignatureError(f"{root} must be signed; it has no {SIGNATURE}. Sign it, or ask for no key.")
    try:
        signature = bytes.fromhex(read_bounded(file, _MOST_BYTES).decode("ascii"))
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise ArtifactSignatureError(
            f"{file} must be a signature of the artifact by the key given; it is not. Do not trust this artifact."
        ) from error


def _check_length(name: str, key: bytes) -> None:
    if len(key) != 32:
        raise DataError(f"{name} must be the 32 raw bytes of an Ed25519 key; got {len(key)} bytes.")
