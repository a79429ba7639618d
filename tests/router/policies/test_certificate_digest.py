"""An edit voids a certificate if it decides a prompt by itself, and not if only sessions look at it."""

from __future__ import annotations

from router.policies.candidates.candidate import Prices
from router.policies.certificate import digest_of
from tests.router.policies.cases import make_rules

PRICES = Prices(input_usd_per_million_tokens=1, output_usd_per_million_tokens=2)


def test_the_price_of_cached_input_does_not_change_the_digest() -> None:
    cached = PRICES.model_copy(update={"cached_input_usd_per_million_tokens": 0.1})
    plain, priced = (digest_of(make_rules(prices=(p, p)), with_prices=True) for p in (PRICES, cached))
    assert plain == priced
    dearer = PRICES.model_copy(update={"input_usd_per_million_tokens": 3})
    assert digest_of(make_rules(prices=(dearer, PRICES)), with_prices=True) != plain


def test_regions_change_the_digest_if_the_policy_requires_one() -> None:
    eu, both = {"small": {"regions": ["eu"]}}, {"small": {"regions": ["eu"]}, "large": {"regions": ["eu"]}}
    assert digest_of(make_rules(changes=eu)) == digest_of(make_rules())
    required = digest_of(make_rules(changes=eu, require_region="eu"))
    assert required != digest_of(make_rules(changes=eu))
    assert required != digest_of(make_rules(changes=both, require_region="eu"))


def test_the_treatment_of_sessions_does_not_change_the_digest() -> None:
    assert digest_of(make_rules(sessions="ignore")) == digest_of(make_rules())
