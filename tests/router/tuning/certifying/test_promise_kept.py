"""What `elle tune` writes keeps its promise when it is served: sessions, files of its own, attempts, swapped models."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from router.cli.main import cli
from router.deciding.pipeline import Router
from router.errors import ConfigError
from router.policies.loading import load_policy
from router.tuning.outcomes import feature_cache
from router.values import RouteQuery
from tests.fakes import FakeEncoder
from tests.tuning_outcomes import MODELS, traffic, write_traffic

PAIR = ("--weak", "weak", "--strong", "strong")

CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Traffic with one prompt that is 30 % of it, a probe fitted on what is left of 60 %, and other traffic."""
    folder = tmp_path_factory.mktemp("promise")
    write_traffic(folder / "data.jsonl", traffic(1500, seed=0))
    write_traffic(folder / "later.jsonl", traffic(800, seed=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_cache, "load_encoder", lambda spec, directory=None: FakeEncoder(spec))
        patch.setenv("ELLE_CACHE_DIR", str(folder / "cache"))
        done = run("fit", folder / "data.jsonl", "--holdout", 0.4, "--out", folder / "probe", "--json")
        assert done.exit_code == 0, done.output
        yield folder


def tune(data_folder: Path, *arguments: object) -> dict[str, Any]:
    done = run("tune", data_folder / "probe", *arguments, *PAIR, "--json")
    assert done.exit_code in (0, 3), done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_one_file_certifies_with_the_rows_that_the_fit_drew(data_folder: Path) -> None:
    found = tune(data_folder, data_folder / "data.jsonl", "--max-loss", 0.4)
    assert found["certified"]
    assert 500 < found["n_calibration"] < 700
    assert 0.25 < (found["n_repeated"] + 1) / found["n_calibration"] < 0.35
    assert found["n_unused"] > 200
    assert found["changed_share"] == 0.0


def test_a_calibration_file_is_kept_whole_and_the_data_of_the_fit_may_stand_beside_it(data_folder: Path) -> None:
    alone = tune(data_folder, "--calibration", data_folder / "later.jsonl", "--max-loss", 0.4)
    beside = tune(
        data_folder, data_folder / "data.jsonl", "--calibration", data_folder / "later.jsonl", "--max-loss", 0.4
    )
    for found in (alone, beside):
        assert found["n_calibration"] == 800
        assert found["data"][0]["name"] == "later.jsonl"
    assert alone["n_seen_in_fit"] == 0
    assert beside["n_seen_in_fit"] > 400
    refused = run("tune", data_folder / "probe", "--calibration", data_folder / "data.jsonl", *PAIR, "--max-loss", 0.1)
    assert refused.exit_code == 1
    assert "Give that file as DATA" in refused.stderr
    none = run("tune", data_folder / "probe", *PAIR, "--max-loss", 0.1)
    assert none.exit_code == 1
    assert "DATA, or --calibration FILE" in none.stderr


def test_swapped_models_are_refused_before_anything_is_written(data_folder: Path, tmp_path: Path) -> None:
    swapped = ("--weak", "strong", "--strong", "weak", "--max-loss", 0.02, "--out", tmp_path / "p.yaml")
    done = run("tune", data_folder / "probe", data_folder / "data.jsonl", *swapped)
    assert done.exit_code == 1
    assert "Are --weak and --strong swapped?" in done.stderr
    assert not list(tmp_path.iterdir())


class TestAttempts:
    def test_targets_tried_one_after_the_other_are_counted_in_certificate_report_and_log(
        self, data_folder: Path, tmp_path: Path
    ) -> None:
        probe = tmp_path / "probe"
        assert run("fit", data_folder / "data.jsonl", "--holdout", 0.4, "--out", probe).exit_code == 0
        out = ("--out", tmp_path / "p.yaml", "--force")
        for limit in (0.01, 0.02, 0.4):
            done = run("tune", probe, data_folder / "data.jsonl", *PAIR, "--max-loss", limit, *out)
            assert done.exit_code in (0, 3), done.output
        assert "This is attempt 3 with these data." in done.stdout
        assert len((tmp_path / "probe.tune-log.jsonl").read_text().splitlines()) == 3
        certificate = load_policy(tmp_path / "p.yaml").certificate
        assert certificate is not None
        assert certificate.attempts == 3
        # Another seed of the same data, at the same place, goes on counting.
        again = ("--holdout", 0.5, "--seed", 1, "--out", probe, "--force")
        assert run("fit", data_folder / "data.jsonl", *again).exit_code == 0
        assert (
            json.loads(run("tune", probe, data_folder / "data.jsonl", *PAIR, "--max-loss", 0.4, "--json").stdout)[
                "attempts"
            ]
            == 4
        )

    @pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
    def test_a_read_only_folder_is_told_and_stops_nothing(self, data_folder: Path, tmp_path: Path) -> None:
        self._tell(data_folder, tmp_path, lambda folder: folder.chmod(0o500))

    def test_a_log_that_cannot_be_written_is_told_and_stops_nothing(self, data_folder: Path, tmp_path: Path) -> None:
        self._tell(data_folder, tmp_path, lambda folder: (folder / "probe.tune-log.jsonl").mkdir())

    def _tell(self, data_folder: Path, folder: Path, spoil: Any) -> None:
        assert run("fit", data_folder / "data.jsonl", "--holdout", 0.4, "--out", folder / "probe").exit_code == 0
        spoil(folder)
        done = run("tune", folder / "probe", data_folder / "data.jsonl", *PAIR, "--max-loss", 0.4, "--json")
        folder.chmod(0o700)
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout)
        assert found["attempts"] is None
        assert any("this attempt is not counted" in note for note in found["notes"])


class TestSessions:
    @pytest.fixture
    def policy(self, data_folder: Path, tmp_path: Path) -> Path:
        assert tune(data_folder, data_folder / "data.jsonl", "--max-loss", 0.4, "--out", tmp_path / "p.yaml")[
            "certified"
        ]
        return tmp_path / "p.yaml"

    @pytest.mark.parametrize(("sessions", "answers"), [("ignore", "strong"), ("hold", "weak")])
    def test_inside_a_tool_loop_the_certified_rule_decides_unless_sessions_are_kept(
        self, data_folder: Path, tmp_path: Path, sessions: str, answers: str
    ) -> None:
        """The very request that a session holds: a turn in the loop of a weak holder that the rule would send up."""
        models = [{"name": name, "model": f"openai/{name}", "capabilities": ["text", "tools"]} for name in MODELS]
        plain = {"schema": "elle.policy/1", "name": "x", "candidates": models, "safe_default": "strong"}
        rule = {"rule": {"kind": "fixed", "candidate": "strong"}}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(plain | rule))
        asked = ("--max-loss", 0.4, "--sessions", sessions, "--out", tmp_path / "p.yaml")
        done = run(
            "tune", data_folder / "probe", data_folder / "data.jsonl", "--candidates", tmp_path / "mine.yaml", *asked
        )
        assert done.exit_code == 0, done.output
        served = load_policy(tmp_path / "p.yaml")
        assert served.encoder_spec is not None
        router = Router([served], {served.encoder_spec.identity: FakeEncoder(served.encoder_spec)})
        alone = {text: router.decide(RouteQuery.from_prompt(text)).chosen for text in map("loop {}".format, range(60))}
        easy = next(text for text, chosen in alone.items() if chosen == "weak")
        hard = next(text for text, chosen in alone.items() if chosen == "strong")
        loop = [{"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "1", "content": "42"}]
        assert router.decide(RouteQuery(({"role": "user", "content": easy},), session_id="one")).chosen == "weak"
        turns = ({"role": "user", "content": hard}, *loop)
        assert router.decide(RouteQuery(turns, session_id="one")).chosen == answers

    def test_turning_sessions_on_voids_the_certificate(self, policy: Path) -> None:
        data = yaml.safe_load(policy.read_text())
        assert data["sessions"] == "ignore"
        assert data["certificate"]["covers"] == "every_request"
        data["sessions"] = "hold"
        policy.write_text(yaml.safe_dump(data))
        with pytest.raises(ConfigError, match=r"must say `sessions: ignore`.*elle tune --sessions hold"):
            load_policy(policy)

    def test_a_policy_that_keeps_sessions_says_what_its_certificate_does_not_cover(
        self, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("probes.encoders.load.load_encoder", lambda spec, directory: FakeEncoder(spec))
        asked = ("--max-loss", 0.4, "--sessions", "hold", "--out", tmp_path / "p.yaml")
        done = run("tune", data_folder / "probe", data_folder / "data.jsonl", *PAIR, *asked)
        words = "requests decided by themselves, not those where a session holds its model"
        assert words in done.stdout.replace("\n", " ")
        assert words in run("validate", tmp_path / "p.yaml").stdout
        served = load_policy(tmp_path / "p.yaml")
        assert served.rules.file.sessions == "hold"
        assert json.loads(served.to_json())["certificate"]["covers"] == "requests_outside_sessions"
