"""Turn off the telemetry of the libraries that we run on. `import probes` does so, before any of them is imported."""

from __future__ import annotations

import os

#: Environment variables that libraries read when they are imported, and the value that keeps them silent. ONNX Runtime
#: otherwise writes a device id and a database into the home directory and looks up the host of its vendor; Hugging
#: Face's libraries tell theirs which models are used.
SILENCED = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


def turn_off() -> None:
    """Set `SILENCED` for this process and for those that it starts, whatever was set before."""
    os.environ.update(SILENCED)
