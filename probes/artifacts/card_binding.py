"""Bind the figures and sources of an artifact's card to the artifact by a digest."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from probes.digests import json_digest
from probes.errors import ArtifactDigestError

log = logging.getLogger(__name__)

_DIGEST = "digest"


def document_digest(document: Mapping[str, object]) -> str:
    """Return the SHA-256 (hex) of every field of probe.json but the digest itself.

    It is no signature: who edits a figure on purpose can compute it again. `store.sign` is against that. Raises
    TypeError or ValueError for what is not plain, finite JSON.
    """
    fields = {name: value for name, value in document.items() if name != _DIGEST}
    return json_digest(fields)


def check_card(file: Path, raw: bytes, readme: Path) -> None:
    """Raise ArtifactDigestError if the card was edited after it was written, in probe.json or in README.md.

    file: the path of probe.json. raw: its bytes, known to be a JSON object. A missing README.md is fine. A probe of an
    earlier version binds its card to nothing and is accepted with a warning until the next release.
    """
    document = json.loads(raw)
    if document.get(_DIGEST) is None:
        log.warning(
            "%s was written by an earlier version: nothing shows whether the figures of its card were edited. Fit or "
            "save it again.",
            file,
        )
        return
    if document_digest(document) != document[_DIGEST]:
        raise ArtifactDigestError(
            f"{file} must be as it was written; a field of it, of the card's figures, sources or versions, was edited "
            "since. Fetch or fit the probe again."
        )
    expected = document.get("readme_sha256")
    if readme.is_file() and sha256(readme.read_bytes()).hexdigest() != expected:
        raise ArtifactDigestError(
            f"{readme} must be the model card that was written with its probe; it was edited since. Fetch the probe "
            "again, or remove the file: nothing reads it. Keep notes of your own elsewhere."
        )
