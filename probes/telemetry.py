"""Turn off the telemetry of the libraries that we use. `import probes` does this before it imports any of them."""

from __future__ import annotations

import os

#: Environment variables that libraries read at import, and the value that turns their telemetry off. Without them ONNX
#: Runtime writes a device id and a database into the home directory and looks up the host of its vendor, and Hugging
#: Face's libraries report which models are used, and Ray what it runs on and for.
SILENCED = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def turn_off() -> None:
    """Set the variables of `SILENCED` for this process and for those that it starts, whatever was set before."""
    os.environ.update(SILENCED)
