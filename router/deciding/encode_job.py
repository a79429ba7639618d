"""Hand the features of a prompt from an encoder's thread to the event loop that waits for them (`EncodeJob`)."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from probes.encoders.spec import FloatArray
from probes.errors import EncoderError
from router.errors import DeadlineError


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """Holds the features of one prompt, and how long waiting and encoding took.

    Attributes:
        features: the features, of shape (d,).
        queue_s: seconds that the prompt waited in the queue.
        encode_s: seconds that the whole forward pass took, which `batch_size` prompts shared.
        batch_size: the number of prompts in the forward pass.
    """

    features: FloatArray
    queue_s: float
    encode_s: float
    batch_size: int = 1


@dataclass(frozen=True, slots=True)
class EncodeJob:
    """Holds a prompt that waits for the encoder, and the future that gets its features.

    Its methods may be called from any thread.

    Attributes:
        text: the prompt.
        deadline: the time of `time.perf_counter` after which nobody wants the features; None if there is none.
        submitted: the time of `time.perf_counter` at which the job was put in the queue.
        loop: the event loop that the future belongs to.
        future: the future that gets the features or an error.
    """

    text: str
    deadline: float | None
    submitted: float
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[EncodedPrompt]

    @property
    def cancelled(self) -> bool:
        """Return whether the caller no longer waits for the features."""
        return self.future.cancelled()

    def expired(self, now: float) -> bool:
        """Return whether the deadline has passed at the time `now` of `time.perf_counter`."""
        return self.deadline is not None and now >= self.deadline

    def finish(self, outcome: EncodedPrompt | BaseException) -> None:
        """Give the future its features, or its error, in the loop that it belongs to."""
        # A closed loop raises RuntimeError. Nobody waits in it.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(_resolve, self.future, outcome)

    def cancel(self) -> None:
        """Cancel the future in the loop that it belongs to."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.future.cancel)


def deadline_error() -> DeadlineError:
    """Return the error for a job that expired in the queue."""
    return DeadlineError("the caller's deadline passed while the prompt waited for the encoder.")


def _resolve(future: asyncio.Future[EncodedPrompt], outcome: EncodedPrompt | BaseException) -> None:
    if future.done():
        return
    if isinstance(outcome, EncodedPrompt):
        future.set_result(outcome)
    else:
        future.set_exception(failure_of(outcome))


def failure_of(outcome: BaseException) -> Exception:
    """Return the error that a prompt fails with if encoding it raised this."""
    if isinstance(outcome, Exception):
        return outcome
    # A panic of Rust code is not an Exception. It must fail this prompt, and must not end the event loop.
    return EncoderError("the encoder broke down on a prompt; see the service's log.")
