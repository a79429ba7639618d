"""The shipped rules and the dashboard: promtool accepts them, and every metric that they name exists."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from router.decision import Reason
from router.observing.catalogue import CATALOGUE
from tests.conftest import ROOT

RULES = ROOT / "deploy" / "prometheus" / "elle-rules.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "elle-router.json"
UNIT_TESTS = Path(__file__).parent / "elle-rules-test.yaml"

#: The labels that Prometheus and its rules add.
ADDED = {"instance", "le"}


def promtool(*arguments: str) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian's package prometheus)")
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def expressions() -> list[str]:
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return [rule["expr"] for rule in rules] + asked + [one["query"] for one in dashboard["templating"]["list"]]


def test_promtool_accepts_the_configuration_and_its_rules() -> None:
    promtool("check", "config", str(RULES.parent / "prometheus.yml"))


def test_the_rules_say_and_alert_what_they_mean(tmp_path: Path) -> None:
    file = tmp_path / "test.yaml"
    file.write_text(UNIT_TESTS.read_text().replace("[RULES]", f"[{RULES}]"))
    promtool("test", "rules", str(file))


def test_promtool_parses_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    filled = [re.sub(r"\$__\w+", "5m", one).replace("$instance", ".*").replace("$policy", ".*") for one in asked]
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(filled)]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", str(file))


def test_every_metric_that_rules_and_dashboard_name_exists() -> None:
    known = {name for metric in CATALOGUE.values() for name in metric.series_names}
    named = {name for expr in expressions() for name in re.findall(r"\belle_\w+", expr)}
    assert named <= known, named - known


def test_every_label_and_reason_in_an_expression_exists() -> None:
    labels = {label for metric in CATALOGUE.values() for label in metric.labels} | ADDED
    for expr in expressions():
        for name, selected in re.findall(r"\b(elle_\w+)\{(.*?)\}", expr):
            own = next(set(metric.labels) for metric in CATALOGUE.values() if name in metric.series_names)
            assert set(re.findall(r"(\w+)(?:!~|=~|!=|=)\"", selected)) <= own | ADDED, expr
        for group in re.findall(r"by \(([\w, ]+)\)", expr):
            assert {one.strip() for one in group.split(",")} <= labels, expr
        for names in re.findall(r'reason(?:!~|=~|=)"([A-Z_|]+)"', expr):
            known = {reason.value for reason in Reason} | {"OVERLOADED", "DEADLINE"}
            assert set(names.split("|")) <= known, expr


def test_recorded_names_that_alerts_read_are_recorded() -> None:
    text = RULES.read_text()
    recorded = set(re.findall(r"record: (\S+)", text))
    assert set(re.findall(r"\belle:[\w:]+", text)) <= recorded
