"""The collector does not run while LiteLLM is imported, which would hold up everybody for a tenth of a second."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT

CODE = """
import gc
from router.answering.upstreams import litellm_import
passes = []
gc.callbacks.append(lambda phase, info: passes.append(info["generation"]) if phase == "start" else None)
litellm_import.import_litellm()
assert gc.isenabled()
# Few objects are left that it would look through: what was imported is none of them.
print(passes.count(2), gc.get_freeze_count() > 100_000, sum(gc.get_count()) < 10_000)
"""


def test_the_collector_rests_while_litellm_is_imported_and_never_looks_through_it() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["0", "True", "True"], done.stderr
