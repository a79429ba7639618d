"""Hold the encoders that the policies of a router need, each with the threads that run it (`EncoderSet`)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType

from probes.encoders.spec import Encoder
from probes.errors import ProbesError
from router.deciding.batch_pool import pool_for
from router.deciding.encode_job import EncodedPrompt
from router.deciding.encode_pool import EncodePool
from router.deciding.fair_queue import Who
from router.deciding.settings import RouterSettings

#: The errors of an encoder that fails on a prompt. torch raises RuntimeError.
_ENCODER_ERRORS = (ProbesError, RuntimeError, MemoryError)


class EncoderSet:
    """Encodes prompts, in the calling thread or in the threads of the encoder, by the encoder of a stated identity.

    Args:
        encoders: the encoder for each encoder identity that a probe names.
        settings: says how many threads an encoder has, and how many prompts may wait for it.
        earlier: a set that this one follows. An encoder that both hold keeps its threads.
    """

    def __init__(
        self, encoders: Mapping[str, Encoder], settings: RouterSettings, earlier: EncoderSet | None = None
    ) -> None:
        self._encoders = dict(encoders)
        kept: dict[str, EncodePool] = {}
        if earlier is not None:
            kept = {key: pool for key, pool in earlier._pools.items() if encoders.get(key) is earlier._encoders[key]}
        limits = {"threads": settings.threads, "max_pending": settings.max_pending}
        self._pools: dict[str, EncodePool] = {
            identity: kept[identity] if identity in kept else pool_for(encoder, **limits)
            for identity, encoder in encoders.items()
        }

    @property
    def encoders(self) -> Mapping[str, Encoder]:
        """Return each encoder under the identity by which a probe asks for it."""
        return MappingProxyType(self._encoders)

    @property
    def batch_slots(self) -> int:
        """Return how many prompts of all batches may be in work at a time: as many as keep every encoder busy."""
        return max((pool.batch_slots for pool in self._pools.values()), default=1)

    @property
    def pending(self) -> int:
        """Return the number of prompts that wait for an encoder or are in work."""
        return sum(pool.pending for pool in self._pools.values())

    def encode_here(self, identity: str, text: str) -> EncodedPrompt | Exception:
        """Encode a prompt in the calling thread, and return its features, or the error that the encoder raised."""
        started = time.perf_counter()
        try:
            features = self._encoders[identity].encode(text)
        except _ENCODER_ERRORS as error:
            return error
        return EncodedPrompt(features, queue_s=0.0, encode_s=time.perf_counter() - started)

    async def encode(
        self, identity: str, text: str, deadline: float | None, who: Who, *, is_alone: bool = False
    ) -> EncodedPrompt | Exception:
        """Encode a prompt in the threads of the encoder, and return its features, or the error that the encoder raised.

        deadline: a time of `time.perf_counter` by which the encoder must begin; None waits for ever. who: whose turn
        it uses. is_alone: whether nobody else waits for anything. A quick prompt is then encoded in the event loop.

        Raises OverloadedError, DeadlineError and ShuttingDownError as `EncodePool.submit` says.
        """
        pool = self._pools[identity]
        try:
            if is_alone and pool.is_quick(text):
                return pool.encode_here(text, deadline=deadline)
            return await pool.submit(text, deadline=deadline, who=who)
        except _ENCODER_ERRORS as error:
            return error

    async def close(self) -> None:
        """Stop the threads of the encoders."""
        for pool in self._pools.values():
            await pool.close()
