"""Name for each API format, but OpenAI's chat completions, how it is translated into them and back (`TRANSLATIONS`)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from router.answering.formats.translating import anthropic_translation, responses_translation
from router.values import ApiFormat, RouteQuery


@dataclass(frozen=True, slots=True)
class Translation:
    """Translates requests of one API format into chat completions, and their answers back.

    Attributes:
        load: imports what the others need, which takes seconds.
        to_chat: returns a request as a chat completion for a model. The value that it returns has the chat as `query`,
            and in `lost` the names of what the chat does not say. The functions below take it. Raises
            InvalidRequestError.
        answer_of: returns a chat completion as an answer of the format. Raises UpstreamUnavailableError.
        events_of: yields the events of the format for the chunks of a chat completion.
    """

    load: Callable[[], None]
    to_chat: Callable[[RouteQuery, str], Any]
    answer_of: Callable[[Mapping[str, Any], Any], dict[str, Any]]
    events_of: Callable[[AsyncGenerator[dict[str, Any], None], Any], AsyncGenerator[dict[str, Any], None]]


TRANSLATIONS: Mapping[ApiFormat, Translation] = {
    ApiFormat.ANTHROPIC_MESSAGES: Translation(
        anthropic_translation.load_adapter,
        anthropic_translation.to_chat,
        anthropic_translation.message_of,
        anthropic_translation.events_of,
    ),
    ApiFormat.OPENAI_RESPONSES: Translation(
        responses_translation.load_responses_adapter,
        responses_translation.responses_to_chat,
        responses_translation.response_of,
        responses_translation.response_events_of,
    ),
}
