"""Recognise API keys by their shape, so that one in the wrong place is refused and shown to nobody."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

#: What stands in a message in the place of a key.
MASK = "***"

# How the keys of common providers begin. What follows must be so long that no word is taken for a key.
_PREFIXED = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?i:sk|pk|rk|csk|whsec)[-_][A-Za-z0-9_-]{8,}"  # OpenAI, Anthropic, OpenRouter, Stripe, Cerebras
    r"|elle_[a-z2-9]{8}_[A-Za-z0-9_-]{30,}"  # a token of `elle token create`
    r"|key-[A-Za-z]*[0-9][A-Za-z0-9]{8,}"
    r"|(?:gsk|hf|r8|fw|npm|glsa|dapi|jina|esecret|tgp_v1|dop_v1|github_pat)_[A-Za-z0-9_-]{16,}"
    r"|gh[pousr]_[A-Za-z0-9]{12,}"
    r"|(?:xai|nvapi|glpat|pypi|xox[abposr]|tvly)-[A-Za-z0-9_-]{16,}"
    r"|pplx-[A-Za-z0-9]{24,}"
    r"|(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,}"
    r"|AIza[A-Za-z0-9_-]{16,}"
    r"|ya29\.[A-Za-z0-9._-]{16,}"
    r"|SG\.[A-Za-z0-9_-]{16,}"
    r"|eyJ[A-Za-z0-9_-]{10,}(?:\.[A-Za-z0-9_-]*)*"  # a JSON Web Token
    r"|dapi[0-9a-f]{16,}"
    r")"
    r"|-----BEGIN [A-Z ]{0,40}KEY-----.*"
    r"|(?i:\b(?:bearer|basic|api[-_ ]?key|password|token)[=: ]+)[A-Za-z0-9+/=._~-]{16,}",
    re.DOTALL,
)
_PASSWORD_IN_URL = re.compile(r"(?<=://)[^/@\s:]*:[^/@\s]*@")

# Runs of letters and digits that may be keys without a prefix.
_RUN = re.compile(r"[A-Za-z0-9+]{20,}")
# Secret keys of AWS, in which a slash may stand.
_AWS_RUN = re.compile(r"(?<![A-Za-z0-9+])[A-Za-z0-9+/]{40}(?![A-Za-z0-9+/])")
_HEX = re.compile(r"[0-9a-f]+|[0-9A-F]+")
_DIGEST_LENGTHS = (40, 64)
_BEFORE_A_VERSION = (":", "@")

# A word in a name stays within one kind of character, digit, small or capital, for several characters. In a random key
# the kind changes at 4 places in 10, where a capital before a small letter is not counted.
_MIN_CHANGES, _MIN_CHANGES_AWS = 0.25, 0.2
_MIN_MIXED, _MIN_ONE_CASE = 20, 32


def holds_secret(text: str, *, digests: bool = True) -> bool:
    """Return whether a text seems to hold an API key: by its prefix, as a JSON Web Token, or as a long random word.

    Names of models pass (`meta-llama/Llama-3.1-405B-Instruct`). SHA-1 and SHA-256 digests in hex pass too; without
    `digests` only behind a colon or an at sign, where a version stands (`replicate/meta/llama:02e509...`).
    """
    return next(_secrets(text, digests=digests), None) is not None


def mask_secrets(text: str) -> str:
    """Return the text with `***` in the place of each key and of each user and password in a URL."""
    for start, end in sorted(_secrets(text), reverse=True):
        text = text[:start] + MASK + text[end:]
    return text


def _secrets(text: str, *, digests: bool = True) -> Iterator[tuple[int, int]]:
    """Yield the places (first, behind the last) of what seems to be a key. They do not overlap."""
    behind = 0
    found = [one.span() for pattern in (_PREFIXED, _PASSWORD_IN_URL) for one in pattern.finditer(text)]
    found += [one.span() for one in _AWS_RUN.finditer(text) if _is_random(one[0], _MIN_CHANGES_AWS, 3)]
    for run in _RUN.finditer(text):
        is_digest = _HEX.fullmatch(run[0]) and len(run[0]) in _DIGEST_LENGTHS
        if not (is_digest and (digests or text[run.start() - 1 : run.start()] in _BEFORE_A_VERSION)):
            found += [run.span()] if _is_random(run[0]) else []
    for start, end in sorted(found):
        if end > behind:
            yield max(start, behind), end
            behind = end


def _is_random(word: str, min_changes: float = _MIN_CHANGES, min_kinds: int = 2) -> bool:
    kinds = ["d" if one.isdigit() else "u" if one.isupper() else "l" for one in word if one.isalnum()]
    if "d" not in kinds or len(set(kinds)) < min_kinds:
        return False
    changes = sum(a != b and (a, b) != ("u", "l") for a, b in itertools.pairwise(kinds))
    least = _MIN_MIXED if len(set(kinds)) == 3 else _MIN_ONE_CASE
    return len(word) >= least and changes >= min_changes * (len(kinds) - 1)
