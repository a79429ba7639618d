"""Secrets in every place that holds one, and a search for them in everything that a service says and keeps."""

from __future__ import annotations

import pytest

for _name in ("cryptography", "jwt", "envoy.service", "opentelemetry.sdk", "sqlalchemy", "psycopg", "starlette"):
    pytest.importorskip(_name)
