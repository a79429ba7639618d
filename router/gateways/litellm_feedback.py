"""A callback for LiteLLM that grades answers and tells the service, whose ledger keeps the grades (`elle_feedback`).

    from router.gateways.litellm_feedback import elle_feedback

    litellm.callbacks.append(elle_feedback("localhost:50051", lambda messages, answer: answer.startswith("{")))

It sees every answer that LiteLLM got from the HTTP door of ELLE Router, or with the plugin of
`router.gateways.litellm_plugin`, and leaves out all others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from router.client import AsyncRouterClient, RouterClient
from router.errors import RouterError
from router.feedback.pieces import FeedbackKind, FeedbackPiece
from router.gateways.litellm_plugin import METADATA_KEY, litellm_and_callback

log = logging.getLogger(__name__)

#: The header that names the decision, and what LiteLLM writes before the names of an upstream's headers.
_HEADER, _PREFIX = "x-elle-decision-id", "llm_provider-"

#: Gets the messages and the text of the answer, and returns how good the answer is; None says nothing.
Grade = Callable[[Sequence[Any], str], float | bool | None]


def elle_feedback(
    address: str, grade: Grade, *, kind: str = "check", name: str = "", api_key: str = "", timeout_s: float = 5.0
) -> Any:
    """Return a callback for `litellm.callbacks`, or for `litellm_settings.callbacks` of LiteLLM's Proxy.

    Args:
        address: address `host:port` of the gRPC port of the service, which must keep a ledger.
        grade: returns how good an answer is, from 0 to 1, or None. It is called in a thread, after the answer.
        kind: the kind of feedback: `check` for a program that is always right about it, or `score`, `verdict`.
        name: which check or score it is; may be empty.
        api_key: the key of the calls, by which the service knows whose decisions they are; a token needs the scope
            `feedback`.
        timeout_s: the most seconds that giving feedback may take.

    An answer counts once, however often LiteLLM tells of it. What cannot be given is logged, and the call of the user
    goes on. Raises GatewayNotInstalledError if LiteLLM is not installed.
    """
    _, custom_logger = litellm_and_callback()
    wanted = FeedbackKind(kind)

    class ElleFeedback(custom_logger):  # type: ignore[misc, valid-type]
        """Gives feedback on what LiteLLM has got."""

        def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
            if (piece := _piece(kwargs, response_obj, grade, wanted, name)) is None:
                return
            try:
                with RouterClient(address, timeout_s=timeout_s) as client:
                    client.feedback(piece, api_key=api_key)
            except RouterError as error:
                _say(piece, error)

        async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
            piece = await asyncio.to_thread(_piece, kwargs, response_obj, grade, wanted, name)
            if piece is None:
                return
            try:
                async with AsyncRouterClient(address, timeout_s=timeout_s) as client:
                    await client.feedback(piece, api_key=api_key)
            except RouterError as error:
                _say(piece, error)

    return ElleFeedback()


def decision_id_of(kwargs: Mapping[str, Any], response: Any) -> str:
    """Return the id of the decision behind an answer of LiteLLM; empty if ELLE Router decided nothing."""
    hidden = getattr(response, "_hidden_params", None) or {}
    headers = hidden.get("additional_headers") or {}
    if found := headers.get(_PREFIX + _HEADER) or headers.get(_HEADER):
        return str(found)
    metadata = (kwargs.get("litellm_params") or {}).get("metadata") or {}
    decided = metadata.get(METADATA_KEY) or {}
    return str(decided.get(_HEADER, ""))


def _piece(
    kwargs: Mapping[str, Any], response: Any, grade: Grade, kind: FeedbackKind, name: str
) -> FeedbackPiece | None:
    """Return the feedback on an answer, or None if there is nothing to say."""
    if not (decision_id := decision_id_of(kwargs, response)):
        return None
    try:
        value = grade(kwargs.get("messages") or (), _text_of(response))
        if value is None:
            return None
        key = f"litellm {decision_id} {kind.value} {name}"[:128]
        return FeedbackPiece(kind, float(value), decision_id, name=name, source="litellm", idempotency_key=key)
    except Exception:
        # The grade is the user's code, and nobody but the log could be told: LiteLLM swallows what callbacks raise.
        log.exception("the grade of an answer could not be given")
        return None


def _text_of(response: Any) -> str:
    choices = getattr(response, "choices", None) or ()
    return "".join(str(getattr(one.message, "content", "") or "") for one in choices if hasattr(one, "message"))


def _say(piece: FeedbackPiece, error: RouterError) -> None:
    log.warning("feedback on decision %s was not given: %s", piece.decision_id, error)
