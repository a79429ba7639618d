"""Certificates that are on disk stay valid: their digests are part of the file format, in every time zone."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from router.errors import ConfigError
from router.policies import certificate as module
from router.policies.candidates.candidate import Prices
from router.policies.certificate import check_certificate, digest_of, is_about_cost, is_expired, say_certificate, sealed
from router.policies.certificate_record import CertificateRecord, CertifiedTarget
from router.policies.rules import Rules
from tests.router.policies.cases import make_rules

PRICES = Prices(input_usd_per_million_tokens=1, output_usd_per_million_tokens=2)
WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

# An earlier version wrote these. Another number here makes every certificate in the world invalid.
OF_RULE = "5cdb46c1a19f504fd406bd45e41d02e1ee0e8591a37358646c4218dfd8657c4f"
OF_RULE_WITH_PRICES = "e570b9b17a33475ea66666a8587174c7be0df1fcd8b75bf3c36f531f84207262"
OF_CERTIFICATE = "01e7b218e3b739b7a1944785b469691b202177a7fc114caa3ef06cb992755720"


def rules_of(prices: tuple[Prices | None, ...] = (PRICES, None), **keys: Any) -> Rules:
    changes = {
        "small": {"capabilities": ["tools", "text"], "regions": ["eu", "de"], "probe_model": "tiny"},
        "large": {"context_window_tokens": 9000, "regions": ["eu"]},
    }
    return make_rules(prices=prices, changes=changes, max_leverage=0.5, **{"require_region": "eu", **keys})


def record(*kinds: str, **changes: Any) -> CertificateRecord:
    targets = tuple(
        CertifiedTarget(kind=kind, limit=0.02, estimate=0.01, bound_on_estimate=0.015, method="ternary", delta=0.05)  # type: ignore[arg-type]
        for kind in kinds or ("max_loss",)
    )
    fields: dict[str, Any] = {
        "confidence": 0.95,
        "targets": targets,
        "reference": "large",
        "n_calibration": 1000,
        "weak_share": 0.4,
        "expected_cost_saving": None,
        "data_digest": "aa",
        "probe": "the probe",
        "decides": "",
        "created": WHEN,
        "expires": WHEN + timedelta(days=36_000),
    }
    return CertificateRecord.model_validate(fields | changes)


def certified(*kinds: str, **changes: Any) -> Rules:
    draft = record(*kinds, **changes)
    decides = digest_of(rules_of(), with_prices=is_about_cost(draft))
    whole = sealed(draft.model_copy(update={"decides": decides}))
    return rules_of(certificate=whole.model_dump(mode="json"))


class TestDigests:
    def test_of_a_rule_with_and_without_prices(self) -> None:
        assert digest_of(rules_of()) == OF_RULE
        assert digest_of(rules_of(), with_prices=True) == OF_RULE_WITH_PRICES

    def test_of_a_certificate_wherever_and_in_whatever_time_zone_it_is_read(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for zone in ("UTC", "Asia/Tokyo", "America/New_York"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            assert sealed(record()).digest == OF_CERTIFICATE
        monkeypatch.undo()
        time.tzset()

    def test_the_order_in_which_a_file_lists_abilities_and_regions_means_nothing(self) -> None:
        other = make_rules(
            prices=(PRICES, None),
            changes={
                "small": {"capabilities": ["text", "tools"], "regions": ["de", "eu"], "probe_model": "tiny"},
                "large": {"context_window_tokens": 9000, "regions": ["eu"]},
            },
            max_leverage=0.5,
            require_region="eu",
        )
        assert digest_of(other) == digest_of(rules_of())

    def test_prices_of_another_number_of_candidates_are_an_error(self) -> None:
        with pytest.raises(ValueError, match="zip"):
            digest_of(rules_of((PRICES, None, None)), with_prices=True)


class TestAboutCost:
    def test_one_target_on_cost_among_others_is_enough_and_no_other_kind_is_about_cost(self) -> None:
        assert is_about_cost(record("max_loss", "max_cost_usd_per_1k"))
        assert not is_about_cost(record("max_loss", "min_quality", "max_strong_share"))

    def test_such_a_certificate_holds_at_its_prices_and_at_no_others(self) -> None:
        rules = certified("max_cost_usd_per_1k")
        check_certificate(rules, "the probe", "here")
        dearer = PRICES.model_copy(update={"output_usd_per_million_tokens": 3})
        with pytest.raises(ConfigError, match=r"here: .*abstention or prices were changed since"):
            check_certificate(Rules(rules.file, (dearer, None), rules.max_leverage), "the probe", "here")

    def test_one_that_is_not_about_cost_holds_at_any_price(self) -> None:
        rules = certified()
        check_certificate(Rules(rules.file, (None, None), rules.max_leverage), "the probe", "here")
        with pytest.raises(ConfigError, match="safe default, abstention were changed since"):
            check_certificate(Rules(rules.file, rules.prices, 0.6), "the probe", "here")


class TestExpiry:
    def test_at_its_very_last_moment_it_is_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Clock(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
                return WHEN

        monkeypatch.setattr(module, "datetime", Clock)
        assert is_expired(record(expires=WHEN))
        assert not is_expired(record(expires=WHEN + timedelta(microseconds=1)))

    def test_an_expired_one_is_logged_with_file_and_date_and_a_valid_one_is_not(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING)
        check_certificate(certified(), "the probe", "p.yaml")
        assert not caplog.records
        check_certificate(certified(expires=WHEN), "the probe", "p.yaml")
        assert caplog.messages == [
            "p.yaml: the certificate expired on 2026-01-02T03:04:05+00:00; tune again on recent outcomes"
        ]


class TestWords:
    def test_one_line_says_what_is_certified_and_until_when(self) -> None:
        line = say_certificate(record("max_loss", "max_strong_share", n_calibration=1234))
        assert line == (
            "certified max_loss 0.02 and max_strong_share 0.02 against large, confidence 0.95, on 1,234 prompts, good "
            "until 2124-07-27; quality is what the scores of the data say; covers requests decided by themselves, not "
            "those where a session holds its model, not answers of another model while the chosen one is down, "
            "attempts not counted"
        )
        assert "prompts, EXPIRED on 2026-01-02; quality is" in say_certificate(record(expires=WHEN))
        assert say_certificate(None) == "no certificate"

    def test_the_first_attempt_needs_no_words_and_the_second_does(self) -> None:
        assert "attempt" not in say_certificate(record(attempts=1))
        assert say_certificate(record(attempts=2)).endswith(", and the confidence is that of a single attempt")
