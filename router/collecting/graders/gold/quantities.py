"""Find the number that a text ends in, with its unit (`final_quantity`)."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

# A library of units would read "in", "a" and "as" as inches, years and attoseconds; these are the units of answers.
_UNITS: Mapping[str, Mapping[str, float]] = {
    "length": {
        "m": 1, "metre": 1, "meter": 1, "km": 1e3, "kilometre": 1e3, "kilometer": 1e3, "cm": 1e-2, "centimetre": 1e-2,
        "centimeter": 1e-2, "mm": 1e-3, "millimetre": 1e-3, "millimeter": 1e-3, "nm": 1e-9, "inch": 0.0254,
        "inches": 0.0254, "ft": 0.3048, "foot": 0.3048, "feet": 0.3048, "yard": 0.9144, "mile": 1609.344,
    },
    "mass": {
        "g": 1, "gram": 1, "kg": 1e3, "kilogram": 1e3, "mg": 1e-3, "milligram": 1e-3, "tonne": 1e6, "lb": 453.59237,
        "pound": 453.59237, "ounce": 28.349523125, "oz": 28.349523125,
    },
    "time": {
        "s": 1, "sec": 1, "second": 1, "ms": 1e-3, "millisecond": 1e-3, "min": 60, "minute": 60, "h": 3600,
        "hr": 3600, "hour": 3600, "day": 86400, "week": 604800,
    },
    "volume": {"l": 1, "litre": 1, "liter": 1, "ml": 1e-3, "millilitre": 1e-3, "milliliter": 1e-3},
    "speed": {"m/s": 1, "km/h": 1 / 3.6, "kmh": 1 / 3.6, "kph": 1 / 3.6, "mph": 0.44704},
    "data": {"byte": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 1024, "mib": 1024**2, "gib": 1024**3},
    "energy": {"j": 1, "joule": 1, "kj": 1e3, "kilojoule": 1e3, "kwh": 3.6e6, "cal": 4.184, "kcal": 4184},
    "percent": {"%": 0.01, "percent": 0.01, "per cent": 0.01},
}  # fmt: skip
_BY_NAME = {name: (dimension, size) for dimension, names in _UNITS.items() for name, size in names.items()}
_SCALES = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}

#: Digits with single signs between them, and an exponent. Each digit belongs to one match: searching takes linear time.
_DIGITS = r"(?:\d+(?:[.,'’_]\d+)*|\.\d+)(?:[eE][+-]?\d{1,4})?"
_NUMBER = re.compile(
    rf"(?P<sign>(?<![\w.)])[+-]\s?)?[$€£¥]?(?P<top>{_DIGITS})(?:\s*/\s*(?P<bottom>{_DIGITS})(?![\w/]))?"
    rf"(?:\s*(?P<scale>thousand|million|billion|trillion)s?\b)?\s*(?P<unit>%|per\s?cent\b|[A-Za-z]{{1,12}}(?:/[a-z]{{1,4}})?)?"
)
_MIXED = re.compile(r"(?<![\d.,/])(\d{1,9})\s+(\d{1,9})\s*/\s*(\d{1,9})(?![\d.,/])")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]{1,40})\}\s*\{([^{}]{1,40})\}")
_POWER_OF_TEN = re.compile(r"\s*(?:\\times|\\cdot|[×·*x])\s*10\s*\^\s*\{?\s*([+-]?\d{1,4})\s*\}?")
_TEXT = re.compile(r"\\(?:text|mathrm|mathbf)\s*\{([^{}]{0,40})\}")
_THIN = re.compile(r"\\[,!;: ]|\{,\}|\\left|\\right")
_BOXED = re.compile(r"\\boxed\s*\{")
_ANSWER = re.compile(r"\banswer\b\s*(?:is|:|=|\*\*:?)|\bequals\b|####", re.IGNORECASE)
_HIGH = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_MOST_BOXED = 500


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number in the unit that was written behind it.

    Attributes:
        value: finite, as it was written.
        unit: the unit, singular and small; empty if none is known.
    """

    value: float
    unit: str = ""

    @property
    def dimension(self) -> str:
        """Return what the unit measures, such as `length`; empty without a unit."""
        return _BY_NAME[self.unit][0] if self.unit else ""

    def values_for(self, other: Quantity) -> tuple[float, ...]:
        """Return the value in the unit of another quantity, in each way in which it can be read."""
        if self.dimension == other.dimension and self.unit:
            return (self.value * _BY_NAME[self.unit][1] / _BY_NAME[other.unit][1],)
        if "percent" in {self.dimension, other.dimension}:
            # Without the sign on one side a share may be meant, as in 0.5 for 50 %, or the sign was left out.
            return self.value, self.value * (0.01 if self.unit else 100)
        return (self.value,)


def final_quantity(text: str) -> Quantity | None:
    """Return the number that a text gives as its result, or None if it holds none.

    It is the one in the last `\\boxed{}`, else behind the last "answer is", "Answer:", "equals" or "####", else the
    last one. If an "=" follows in that line, the number behind it counts.
    """
    text = _plain(text)
    boxed = _last_match(_BOXED, text)
    if boxed is not None and (found := _last(text[boxed.end() : boxed.end() + _MOST_BOXED].partition("}")[0])):
        return found
    said = _last_match(_ANSWER, text)
    if said is not None:
        line = text[said.end() :].strip().partition("\n")[0]
        head, _, tail = line.rpartition("=")
        if found := (next(_quantities(tail), None) or next(_quantities(head), None)):
            return found
    return _last(text)


def _last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)


def _last(text: str) -> Quantity | None:
    return next(iter(deque(_quantities(text), maxlen=1)), None)


def _plain(text: str) -> str:
    """Return a text with numbers in LaTeX and in special characters of Unicode written plainly."""
    text = re.sub(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))", "", text)
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+", lambda match: "^" + match[0].translate(_HIGH), text)
    # NFKC makes "1½" into "11⁄2".
    text = unicodedata.normalize("NFKC", re.sub(r"(?<=\d)(?=[¼-¾⅐-⅞])", " ", text))
    text = text.replace("−", "-").replace("⁄", "/").replace("\\%", "%").replace("\\$", "$")
    text = _TEXT.sub(r" \1", _THIN.sub("", text))
    text = _FRACTION.sub(r" \1/\2", text)
    text = _MIXED.sub(lambda found: _mixed(*map(int, found.groups())), text)
    return re.sub(r"(?<=[\d.])" + _POWER_OF_TEN.pattern, r"e\1", text)


def _mixed(whole: int, top: int, bottom: int) -> str:
    return f"{whole * bottom + top}/{bottom}"


def _quantities(text: str) -> Iterator[Quantity]:
    for match in _NUMBER.finditer(text):
        value = _value(match["top"])
        if match["bottom"]:
            bottom = _value(match["bottom"])
            value = value / bottom if bottom else math.nan
        value *= _SCALES.get((match["scale"] or "").lower(), 1.0) * (-1 if "-" in (match["sign"] or "") else 1)
        if math.isfinite(value):
            yield Quantity(value, _unit(match["unit"] or ""))


def _unit(word: str) -> str:
    word = word.lower().replace("percent", "%").replace("per cent", "%")
    singular = word[:-1] if word.endswith("s") and len(word) > 3 else word
    return next((name for name in (word, singular) if name in _BY_NAME), "")


def _value(digits: str) -> float:
    """Return the number that digits with separators stand for: 1,234.5 and 1.234,5 and 1 234,5 are one number."""
    mantissa, _, exponent = digits.lower().partition("e")
    mantissa = re.sub(r"['’_]", "", mantissa)
    commas, points = mantissa.count(","), mantissa.count(".")
    if commas and points:
        last = max(mantissa.rfind(","), mantissa.rfind("."))
        mantissa = re.sub(r"[.,]", "", mantissa[:last]) + "." + mantissa[last + 1 :]
    elif commas == 1 and not re.fullmatch(r"[1-9]\d{0,2},\d{3}", mantissa):
        mantissa = mantissa.replace(",", ".")
    elif commas or points > 1:
        mantissa = mantissa.replace(",", "").replace(".", "")
    try:
        return float(f"{mantissa}e{exponent or 0}")
    except ValueError:
        return math.nan
