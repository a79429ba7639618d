"""Turn text into at most a stated number of token ids. A longer prompt keeps its beginning and its end."""

from __future__ import annotations

from probes.asides.gate import AsideGate
from probes.asides.reading import without_asides
from probes.bounded.files import shown
from probes.errors import DataError, EncoderError

#: Characters looked at per token read. Beyond it the middle is dropped before tokenising, so that a prompt of half a
#: megabyte costs no more than a page; only a text of mostly blanks could notice.
CHARACTERS_PER_TOKEN = 32

#: How a prompt of too many tokens is cut: its beginning, or its beginning and its end in equal parts.
TRUNCATIONS = ("head", "head_tail")


class PromptTokenizer:
    """Turns text into token ids with the encoder's own tokenizer, and cuts long prompts. It is thread-safe.

    Args:
        contents: those of a `tokenizer.json`.
        max_tokens: most ids given, special tokens included.
        truncation: one of `TRUNCATIONS`. Head and tail because a task's question tends to stand at one of its ends
            (docs/decisions/0006-serving-encoder.md has the figures).
        asides: the digest of the gate by which asides are left out of a text; None reads all of it.

    Raises EncoderError for contents that are no tokenizer, or if this version has another gate.
    """

    def __init__(self, contents: bytes, max_tokens: int, truncation: str, asides: str | None = None) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_str(contents.decode("utf-8"))
        except Exception as error:
            # tokenizers raises plain Exception.
            raise EncoderError(f"tokenizer.json cannot be read: {shown(str(error), 200)}.") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._max_tokens = max_tokens
        self._from_end = (max_tokens // 2 if truncation == "head_tail" else 1) or 1
        self._gate = None if asides is None else gate_of(asides)

    @property
    def vocabulary(self) -> int:
        """The size of the vocabulary: one more than the largest token id that the tokenizer can give."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def __call__(self, text: str) -> list[int]:
        """Return the token ids of a text, special tokens first and last. Raises DataError for invalid Unicode."""
        read = self._ends(text)
        return self._ids(read if self._gate is None else without_asides(read, self._gate))

    def whole(self, text: str) -> list[int]:
        """Return the token ids of a text with its asides."""
        return self._ids(self._ends(text))

    def _ids(self, read: str) -> list[int]:
        try:
            # The tokenizer itself calls such text "not a string".
            read.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"text must be valid Unicode, got a lone surrogate at {error.start}.") from error
        ids: list[int] = self._tokenizer.encode(read).ids
        if len(ids) <= self._max_tokens:
            return ids
        return ids[: self._max_tokens - self._from_end] + ids[-self._from_end :]

    def _ends(self, text: str) -> str:
        half = self._max_tokens * CHARACTERS_PER_TOKEN // 2
        return text if len(text) <= 2 * half else f"{text[:half]} {text[-half:]}"


def gate_of(digest: str) -> AsideGate:
    """Return the gate of this digest. Raises EncoderError if this version has another one."""
    gate = AsideGate.read()
    if gate.digest != digest:
        raise EncoderError(
            f"the encoder leaves out asides by gate {shown(digest, 12)}, and this version has gate {gate.digest[:12]}. "
            f"Fit the probe again, or use the version that it was fitted with."
        )
    return gate
