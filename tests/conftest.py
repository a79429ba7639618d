"""What several test folders share."""

from __future__ import annotations

import os
from pathlib import Path

# Before any library looks: nothing in the tests may reach for a network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"
