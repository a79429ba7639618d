"""Run `elle serve`, with an encoder that fails for as long as the file in `ELLE_CHAOS_ENCODER` exists.

    python -m benchmarks.chaos.server serve ...

Workers import this module again, so that the encoder of each of them fails.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def _make_fragile() -> None:
    """Let every encoder of this process fail when it is told to."""
    from probes.encoders import load

    flag = Path(os.environ["ELLE_CHAOS_ENCODER"])
    load_exported = load.load_exported_encoder

    def load_fragile(*arguments: Any) -> Any:
        encoder = load_exported(*arguments)
        kind: Any = type(encoder)
        encode = kind.encode

        def fragile(self: Any, text: str) -> Any:
            if flag.exists():
                raise RuntimeError("the encoder was told to fail")
            return encode(self, text)

        kind.encode = fragile
        return encoder

    load.load_exported_encoder = load_fragile


if __name__ == "__main__":
    from router.cli.main import main

    main()
else:
    # Workers import this module by another name. The parent has no encoder.
    _make_fragile()
