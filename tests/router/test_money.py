"""Amounts of money that people read: a small one must not read as nothing."""

from __future__ import annotations

import pytest

from router.money import amount_text, usd_text


@pytest.mark.parametrize(
    ("usd", "written"),
    [
        (0.0, "0"),
        (0.000000123, "0.000000123"),
        (0.0000213, "0.0000213"),
        (0.000257, "0.000257"),
        (0.0206, "0.0206"),
        (0.5, "0.5000"),
        (1.0, "1.00"),
        (1234.5, "1,234.50"),
        (-0.0000213, "-0.0000213"),
    ],
)
def test_an_amount_has_digits_that_say_how_much_it_is(usd: float, written: str) -> None:
    assert amount_text(usd) == written


@pytest.mark.parametrize("exponent", range(-12, 7))
def test_no_amount_reads_as_nothing_or_is_off_by_more_than_half_a_percent(exponent: int) -> None:
    for digits in (1.0, 1.005, 3.337, 9.996):
        usd = digits * 10.0**exponent
        assert float(amount_text(usd).replace(",", "")) == pytest.approx(usd, rel=5e-3)


def test_an_amount_with_its_unit() -> None:
    assert usd_text(0.00213) == "0.00213 USD"
