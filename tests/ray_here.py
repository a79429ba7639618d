"""Say which tests need Ray, which only `make test-ray` has."""

from __future__ import annotations

import importlib.util

import pytest

NEEDS_RAY = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed; `make test-ray` has it"
)
