"""Render a chart with Helm's own engine, and print what helm lint finds and the manifests as JSON.

It runs in .venv-chart (`make test-chart`): `render.py CHART VALUES.json`. A fault of the chart ends it with an error.
"""

from __future__ import annotations

import json
import sys

from helm_python.chart import Chart, lint

path, values = sys.argv[1], json.loads(sys.argv[2])
report = lint(path, values, strict=True)
with Chart.load(path) as chart:
    manifests = chart.render(values, name="test", namespace="routing")
print(json.dumps({"lint": report, "manifests": manifests}))
