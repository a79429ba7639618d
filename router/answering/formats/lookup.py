"""Find the reader of answers for the API format of a request (`format_of`)."""

from __future__ import annotations

from collections.abc import Mapping

from router.answering.formats.answer_format import AnswerFormat
from router.answering.formats.anthropic_messages import AnthropicMessages
from router.answering.formats.openai_chat import OpenAIChat
from router.answering.formats.openai_completions import OpenAICompletions
from router.answering.formats.openai_responses import OpenAIResponses
from router.values import ApiFormat

OPENAI_CHAT = OpenAIChat()

_FORMATS: Mapping[ApiFormat, AnswerFormat] = {
    ApiFormat.OPENAI_CHAT: OPENAI_CHAT,
    ApiFormat.ANTHROPIC_MESSAGES: AnthropicMessages(),
    ApiFormat.OPENAI_RESPONSES: OpenAIResponses(),
    ApiFormat.OPENAI_COMPLETIONS: OpenAICompletions(),
}


def format_of(name: ApiFormat) -> AnswerFormat:
    """Return the reader of answers in this format, such as `AnthropicMessages` for `ApiFormat.ANTHROPIC_MESSAGES`."""
    return _FORMATS[name]
