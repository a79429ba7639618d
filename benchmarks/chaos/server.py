"""Run `elle serve`, with an encoder that fails for as long as the file in `ELLE_CHAOS_ENCODER` exists.

    python -m benchmarks.chaos.server serve ...

Workers import this module again, so that the encoder of each of them fails.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from probes.encoders import load

_FLAG = Path(os.environ["ELLE_CHAOS_ENCODER"])
_load_exported = load.load_exported_encoder


def _load_fragile(*arguments: Any) -> Any:
    """Load the encoder, and let it fail when it is told to."""
    encoder = _load_exported(*arguments)
    kind: Any = type(encoder)
    encode = kind.encode

    def fragile(self: Any, text: str) -> Any:
        if _FLAG.exists():
            raise RuntimeError("the encoder was told to fail")
        return encode(self, text)

    kind.encode = fragile
    return encoder


load.load_exported_encoder = _load_fragile

if __name__ == "__main__":
    from router.cli.main import main

    main()
