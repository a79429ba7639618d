"""The policy file: what is refused, and that the message names the key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from router.errors import ConfigError
from router.policies.policy_file import read_policy_file

GOOD = """\
schema: elle.policy/1
name: two-tiers
probe: probe
candidates:
  - {name: small, model: openai/small}
  - {name: large, model: openai/large}
rule: {kind: gain, thresholds: [0.1]}
safe_default: large
"""


def read(tmp_path: Path, text: str) -> object:
    path = tmp_path / "policy.yaml"
    path.write_text(text, "utf-8")
    return read_policy_file(path)


def test_a_good_file_is_read_with_its_defaults(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(GOOD)
    policy = read_policy_file(tmp_path / "policy.yaml")
    assert policy.names == ("small", "large")
    assert policy.failure_mode == "safe_default"
    assert policy.abstain_above_leverage == "probe"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("safe_default: large", "safe_default: large\ntresholds: 1", "tresholds: unknown key"),
        ("model: openai/small}", "model: openai/small, prise: 1}", "candidates.0.prise: unknown key"),
        ("name: two-tiers", "name: two tiers", "name: String should match pattern"),
        ("safe_default: large", "safe_default: huge", "safe_default must be one of small, large, got 'huge'"),
        ("thresholds: [0.1]", "thresholds: [0.1, 0.2]", "one number per step between tiers, 1 for 2"),
        ("thresholds: [0.1]", "thresholds: [.nan]", "finite number"),
        ("thresholds: [0.1]", "thresholds: [1.5]", "less than or equal to 1"),
        ("name: large, model", "name: small, model", "candidate names must be distinct, small"),
        ("kind: gain", "kind: vibes", "rule.kind: must be one of 'gain', 'risk_bound', 'cost', 'fixed', got 'vibes'"),
        (
            "model: openai/small}",
            "model: openai/small, prices: {a: 1}}",
            "candidates.0.prices.a: unknown key; remove it or correct its spelling\n"
            "  candidates.0.prices: Input should be 'litellm'",
        ),
        ("kind: gain", "kind: null", "rule.kind: must be one of 'gain', 'risk_bound', 'cost', 'fixed', got null"),
        ("safe_default: large", "safe_default: null", "safe_default: must be text, got null"),
        ("name: two-tiers", "name: true", "name: must be text, got true"),
        ("rule: {kind: gain, thresholds: [0.1]}", "rule: null", "rule: must be a mapping, got null"),
        ("safe_default: large", "safe_default: large\naliases: 5", "aliases: must be a mapping, got 5"),
        ("thresholds: [0.1]", "thresholds: 0.1", "thresholds: must be a list, got 0.1"),
        ("schema: elle.policy/1", "schema: elle.policy/9", "schema: Input should be 'elle.policy/1'"),
        ("probe: probe\n", 'probe: "a\\0b"\n', "probe: String should match pattern"),
        ("probe: probe\n", f"probe: {'x' * 5_000}\n", "probe: String should have at most 4096 characters"),
        ("probe: probe\n", "", "probe or score must be set for the rule 'gain'"),
        ("name: two-tiers", "name: two-tiers\nname: again", "key 'name' occurs twice"),
        ("rule: {kind: gain, thresholds: [0.1]}", "rule: {kind: fixed, candidate: huge}", "rule.candidate must be"),
        (
            "rule: {kind: gain, thresholds: [0.1]}",
            "rule: {kind: cost, quality_per_usd: 10}",
            "rule weighs costs, so every candidate needs prices; small, large have none",
        ),
        (
            "safe_default: large",
            "safe_default: large\nprofiles: {economy: {rule: {kind: gain, thresholds: [0.1, 0.2]}}}",
            "profiles.economy.rule.thresholds must have one number per step",
        ),
        (
            "safe_default: large",
            "safe_default: large\nprofiles: {'a:b': {rule: {kind: fixed, candidate: small}}}",
            "String should match pattern",
        ),
        (
            "safe_default: large",
            "safe_default: large\ncertificate: {confidence: 0.95}",
            "certificate.targets: must be set",
        ),
        ("model: openai/small}", "model: openai/small, regions: [EU]}", "candidates.0.regions.0: String should match"),
        (
            "safe_default: large",
            "safe_default: large\nrequire_region: eu",
            "require_region must be among the regions of a candidate, none has 'eu'",
        ),
        (GOOD, "- a\n- list", "must hold a mapping, got a list"),
        (GOOD, "a: [", "must be YAML"),
    ],
)
def test_a_bad_file_is_refused_with_the_key_at_fault(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, GOOD.replace(old, new))
    assert message in str(caught.value)
    assert "policy.yaml" in str(caught.value)


def test_candidates_with_unknown_keys_are_not_also_called_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, GOOD.replace("small}", "small, prise: 1}").replace("large}", "large, prise: 1}"))
    said = str(caught.value)
    assert "candidates.0.prise: unknown key" in said
    assert "at least 1" not in said
    with pytest.raises(ConfigError, match=r"candidates: .* at least 1 item"):
        read(tmp_path, re.sub(r"candidates:\n.*\n.*\n", "candidates: []\n", GOOD))


def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_policy_file(tmp_path / "none.yaml")


def test_two_spellings_of_the_same_policy_have_the_same_digest(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(GOOD)
    first = read_policy_file(tmp_path / "policy.yaml").digest
    (tmp_path / "policy.yaml").write_text("# a comment\n" + GOOD.replace("[0.1]", "[0.10]"))
    assert read_policy_file(tmp_path / "policy.yaml").digest == first
    (tmp_path / "policy.yaml").write_text(GOOD.replace("[0.1]", "[0.2]"))
    assert read_policy_file(tmp_path / "policy.yaml").digest != first
