"""Compute the digests by which artifacts, encoders and policies are known."""

from __future__ import annotations

import hashlib
import json


def json_digest(value: object) -> str:
    """Return the SHA-256 (hex) of a JSON value, which does not depend on the order of its keys.

    Raises TypeError or ValueError for what is not plain, finite JSON.
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()
