"""An edit of any field that decides, or of any field of the certificate, is noticed. Fields are found, not listed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from router.errors import ConfigError
from router.policies.candidates.candidate import Candidate, Prices
from router.policies.certificate import (
    COSTS_OF_CANDIDATE,
    FREE_IN_CANDIDATE,
    FREE_IN_POLICY,
    REGIONS_OF_CANDIDATE,
    check_certificate,
    digest_of,
    is_about_cost,
    say_certificate,
    sealed,
)
from router.policies.certificate_record import CertificateRecord, CertifiedTarget
from router.policies.policy_file import PolicyFile
from router.policies.rules import Rules
from tests.router.policies.cases import make_rules

PRICES = Prices(input_usd_per_million_tokens=1, output_usd_per_million_tokens=2)
DEARER = Prices(input_usd_per_million_tokens=3, output_usd_per_million_tokens=2)

#: Another value for every field of a policy; a field that is not here fails the test that looks for it.
POLICY_EDITS: dict[str, Any] = {
    "rule": {"kind": "gain", "thresholds": [0.2]},
    "safe_default": "small",
    "failure_mode": "error",
    "task": "system_prompt",
    "require_region": "eu",
    "on_unsupported": "refuse",
    "pass_unknown_parts": False,
    "candidates": None,  # field by field, below
    "abstain_within": 0.05,
    "harness_marks": {"ours": {"blocks": ["our-state"]}},
    "abstain_above_leverage": None,  # by the limit that it stands for, below
    "score": None,  # in place of a probe, below
}
CANDIDATE_EDITS: dict[str, Any] = {
    "context_window_tokens": 4096,
    "capabilities": ["text", "tools"],
    "regions": ["eu", "us"],
    "prices": None,
    "expected_output_tokens": 999,
    "params": {"reasoning_effort": "low", "extra_body": {"top_k": 5}},
    "unsupported": [],
}


def decided(**keys: Any) -> Rules:
    prices = keys.pop("prices", (PRICES, PRICES))
    changes = {"small": {"regions": ["eu"]} | keys.pop("small", {}), "large": {"regions": ["eu"]}}
    return make_rules(prices=prices, changes=changes, **{"require_region": "eu", **keys})


def test_every_field_of_a_policy_decides_or_is_named_as_free() -> None:
    assert set(PolicyFile.model_fields) == FREE_IN_POLICY | POLICY_EDITS.keys()
    assert set(Candidate.model_fields) == FREE_IN_CANDIDATE | CANDIDATE_EDITS.keys()
    assert not FREE_IN_POLICY & POLICY_EDITS.keys()
    assert not FREE_IN_CANDIDATE & CANDIDATE_EDITS.keys()
    assert set(CANDIDATE_EDITS) > COSTS_OF_CANDIDATE | REGIONS_OF_CANDIDATE


@pytest.mark.parametrize(
    "field", sorted(set(POLICY_EDITS) - {"candidates", "abstain_above_leverage", "require_region", "score"})
)
def test_an_edit_of_the_policy_changes_its_digest(field: str) -> None:
    assert digest_of(decided(**{field: POLICY_EDITS[field]})) != digest_of(decided())


def test_an_edit_of_the_leverage_limit_or_the_required_region_changes_the_digest() -> None:
    assert digest_of(decided(max_leverage=0.1)) != digest_of(decided(max_leverage=0.2)) != digest_of(decided())
    assert digest_of(decided(require_region=None)) != digest_of(decided())


def test_an_edit_of_the_score_that_callers_send_changes_the_digest() -> None:
    plain: dict[str, Any] = {"name": "sure", "low": 0, "high": 1, "risks": [{"scores": [0, 1], "risks": [1, 0]}] * 2}
    edits = [{"name": "other"}, {"low": -1}, {"high": 2}, {"risks": [{"scores": [0, 1], "risks": [0.9, 0]}] * 2}]
    digests = [digest_of(decided(probe=None, score=plain | edit)) for edit in ({}, *edits)]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("field", sorted(CANDIDATE_EDITS))
def test_an_edit_of_a_candidate_changes_the_digest(field: str) -> None:
    edit = {"prices": (DEARER, PRICES)} if field == "prices" else {"small": {field: CANDIDATE_EDITS[field]}}
    assert digest_of(decided(**edit), with_prices=True) != digest_of(decided(), with_prices=True)
    assert (digest_of(decided(**edit)) != digest_of(decided())) == (field not in COSTS_OF_CANDIDATE)


def test_an_edit_of_the_probes_name_of_a_candidate_changes_the_digest() -> None:
    assert digest_of(decided(small={"probe_model": "other"})) != digest_of(decided())


@pytest.mark.parametrize(
    "edit",
    [
        {"model": "openai/other", "api_base": "canned", "api_key_env": "KEY", "prompt_cache_s": 1, "timeout_s": 1},
        {"first_token_timeout_s": 1, "retries": 0, "break_after": 1, "cooldown_s": 1, "speaks": ["responses"]},
        {"capabilities": ["text"]},
    ],
)
def test_an_edit_of_how_a_candidate_is_reached_does_not_change_the_digest(edit: dict[str, Any]) -> None:
    assert digest_of(decided(small=edit)) == digest_of(decided())


def certificate_of(rules: Rules, **changes: Any) -> CertificateRecord:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    target = CertifiedTarget(
        kind="max_loss", limit=0.02, estimate=0.01, bound_on_estimate=0.015, method="ternary", delta=0.05
    )
    fields: dict[str, Any] = {
        "confidence": 0.95,
        "targets": (target,),
        "reference": "large",
        "covers": "every_request",
        "n_calibration": 1000,
        "n_seen_left_out": 1,
        "n_seen_kept": 2,
        "n_incomplete": 3,
        "weak_share": 0.4,
        "expected_cost_saving": 0.3,
        "data_digest": "aa",
        "probe": "the probe",
        "decides": "",
        "attempts": 2,
        "about": "people",
        "n_human": 200,
        "created": now,
        "expires": now + timedelta(days=36_000),
    }
    draft = CertificateRecord.model_validate(fields | changes)
    decides = digest_of(rules, with_prices=is_about_cost(draft))
    return sealed(draft.model_copy(update={"decides": decides}))


def certified(**changes: Any) -> Rules:
    plain = make_rules(sessions="ignore")
    certificate = certificate_of(plain, **changes)
    return make_rules(sessions="ignore", certificate=certificate.model_dump(mode="json"))


def other(value: Any) -> Any:
    """Return another value of the same kind."""
    known = {"large": "small", "every_request": "requests_outside_sessions", "max_loss": "min_quality"}
    known["people"] = "judge kind"
    if isinstance(value, str):
        return known.get(value, "2030-01-01T00:00:00Z" if value.endswith("Z") else f"{value}b")
    return value * 0.99 if isinstance(value, float) else value + 1


def leaves(model: BaseModel, *path: str | int) -> Iterator[tuple[str | int, ...]]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, tuple):
            for number, part in enumerate(value):
                yield from leaves(part, *path, name, number)
        else:
            yield (*path, name)


PLACES = sorted(leaves(certified().file.certificate), key=str)  # type: ignore[arg-type]


def test_an_unedited_certificate_is_accepted() -> None:
    check_certificate(certified(), "the probe", "here")
    assert {place[0] for place in PLACES} == set(CertificateRecord.model_fields)
    assert {place[-1] for place in PLACES} > set(CertifiedTarget.model_fields)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
@pytest.mark.parametrize("removed", [False, True])
def test_an_edit_of_any_field_of_a_certificate_is_refused(place: tuple[str | int, ...], removed: bool) -> None:
    data = certified().file.model_dump(mode="json", by_alias=True)
    inner: Any = data["certificate"]
    for key in place[:-1]:
        inner = inner[key]
    if removed:
        del inner[place[-1]]
    else:
        inner[place[-1]] = other(inner[place[-1]])
    with pytest.raises((ConfigError, ValueError), match=r"certificate") as caught:
        check_certificate(
            Rules(PolicyFile.model_validate(data), (None, None), max_leverage=None), "the probe", "certificate"
        )
    if isinstance(caught.value, ConfigError):
        assert "remove the certificate" in str(caught.value)


def test_another_target_and_another_order_of_them_are_refused() -> None:
    data = certified().file.model_dump(mode="json", by_alias=True)
    data["certificate"]["targets"].append(data["certificate"]["targets"][0])
    with pytest.raises(ConfigError, match="own fields"):
        check_certificate(Rules(PolicyFile.model_validate(data), (None, None), None), "the probe", "here")


def test_a_certificate_that_an_editor_of_yaml_rewrote_is_accepted() -> None:
    data = certified().file.model_dump(mode="json", by_alias=True)
    data["certificate"]["created"] = "2026-01-01T02:00:00+02:00"
    again = PolicyFile.model_validate(yaml.safe_load(yaml.safe_dump(data)))
    check_certificate(Rules(again, (None, None), None), "the probe", "here")


def test_a_certificate_of_every_request_needs_a_policy_that_ignores_sessions() -> None:
    certificate = certified().file.certificate
    assert certificate is not None
    held = make_rules(certificate=certificate.model_dump(mode="json"))
    with pytest.raises(ConfigError, match="must say `sessions: ignore`"):
        check_certificate(held, "the probe", "here")
    narrow = certificate_of(held, covers="requests_outside_sessions")
    check_certificate(make_rules(certificate=narrow.model_dump(mode="json")), "the probe", "here")


def test_the_description_says_what_a_certificate_does_not_cover() -> None:
    words = say_certificate(certified().file.certificate)
    for part in (
        "covers every request, each decided by itself",
        "not answers of another model while the chosen one is down",
        "not requests like the 1 left out because the fit saw their text",
        "not requests like the 3 without a score of every model",
        "if the 2 prompts whose text the fit saw are not the requests of the fit",
        "attempt 2 with these data",
    ):
        assert part in words
    assert "attempts not counted" in say_certificate(certified(attempts=None).file.certificate)
    narrow = say_certificate(certified(covers="requests_outside_sessions").file.certificate)
    assert "not those where a session holds its model" in narrow
