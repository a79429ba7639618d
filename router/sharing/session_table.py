"""Keep entries of one size in memory that all workers of a machine share, without a lock that one could leave behind.

An entry has a checksum. One that two workers wrote at the same moment, or that a killed worker left half written, is
read as absent, so nobody ever waits for anybody.
"""

from __future__ import annotations

import hashlib
import mmap
import multiprocessing.reduction
import os
import secrets
import struct
import tempfile
import zlib
from dataclasses import dataclass
from typing import Any

#: The bytes of a key, and of the digest of a name.
KEY_BYTES = 16

_ENTRY = struct.Struct(f"<{KEY_BYTES}sdI{KEY_BYTES}s")
_SUM = struct.Struct("<I")
_WHOLE = struct.Struct(f"{_ENTRY.format}I")
_SLOT_BYTES = _WHOLE.size
#: The same for numpy.
_FIELDS = [("key", "V16"), ("at_s", "<f8"), ("tokens", "<u4"), ("name", "<u8", 2), ("sum", "<u4")]

#: The most slots in which a key may lie.
_WAYS = 16

_MOST_TOKENS = 2**32 - 1


class SharedBlock:
    """Holds memory that is shared with the processes to which it is handed when they start.

    Attributes:
        secret: a key for digests, which all these processes share too.
    """

    def __init__(self, n_bytes: int, secret: bytes | None = None, descriptor: int | None = None) -> None:
        self.secret = secrets.token_bytes(32) if secret is None else secret
        self._n_bytes = n_bytes
        self._descriptor = _anonymous_file(n_bytes) if descriptor is None else descriptor
        # Nothing is in memory before it is written.
        self.memory = mmap.mmap(self._descriptor, max(1, n_bytes))

    def __del__(self) -> None:
        if (descriptor := getattr(self, "_descriptor", None)) is not None:
            os.close(descriptor)

    def __reduce__(self) -> tuple[Any, ...]:
        handed_on: Any = multiprocessing.reduction.DupFd(self._descriptor)
        return _received, (self._n_bytes, self.secret, handed_on)


def _received(n_bytes: int, secret: bytes, descriptor: Any) -> SharedBlock:
    return SharedBlock(n_bytes, secret, descriptor.detach())


def _anonymous_file(n_bytes: int) -> int:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("elle-sessions")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, max(1, n_bytes))
    return descriptor


@dataclass(frozen=True, slots=True)
class Entry:
    """Says which candidate answered last, or which decision an answer belongs to whose cost is not known yet.

    Attributes:
        name: the digest of the candidate's name, or the id of the decision.
        tokens: the input tokens that the candidate has read, or the millionths of US dollars that were charged.
        at_s: when that was, by the clock of whoever uses the table.
    """

    name: bytes
    tokens: int
    at_s: float


class SessionTable:
    """Keeps at most `max_entries` entries, `first` slots after the beginning of a block.

    Each key has a bucket of a few slots. If they are all taken, the oldest entry of the bucket makes room.
    """

    def __init__(self, block: SharedBlock, max_entries: int, first: int = 0) -> None:
        self._memory = block.memory
        self._n_buckets = max(1, max_entries // _WAYS)
        self._ways = max_entries // self._n_buckets
        self._begins = first * _SLOT_BYTES

    @staticmethod
    def n_bytes(n_entries: int) -> int:
        """Return how many bytes so many slots take."""
        return n_entries * _SLOT_BYTES

    def get(self, key: bytes) -> Entry | None:
        """Return the entry of a key, or None."""
        begins, ends = self._bucket(key)
        place = self._find(key, begins, ends)
        if place < 0:
            return None
        slot = self._memory[place : place + _SLOT_BYTES]
        found, at_s, tokens, name, checksum = _WHOLE.unpack(slot)
        # Another process may have given the slot to another key meanwhile.
        if found != key or zlib.crc32(slot[: _ENTRY.size]) != checksum:
            return None
        return Entry(name, tokens, at_s)

    def put(self, key: bytes, entry: Entry) -> None:
        """Write the entry of a key, in place of the one that it had."""
        begins, ends = self._bucket(key)
        place = self._find(key, begins, ends)
        if place < 0:
            place = begins + self._oldest(begins, ends, entry.at_s) * _SLOT_BYTES
        packed = _ENTRY.pack(key, entry.at_s, min(max(0, entry.tokens), _MOST_TOKENS), entry.name)
        if ends > begins:
            self._memory[place : place + _SLOT_BYTES] = packed + _SUM.pack(zlib.crc32(packed))

    def _oldest(self, begins: int, ends: int, now: float) -> int:
        """Return the number of the slot in a bucket that is free, or spoiled, or else the oldest."""
        oldest, found = now, 0
        for number, (_, at_s, _, _, checksum) in enumerate(_WHOLE.iter_unpack(self._memory[begins:ends])):
            # A time that is not in the past is no time: the slot was half written.
            if not checksum or not at_s <= now:
                return number
            if at_s < oldest:
                oldest, found = at_s, number
        return found

    def count_since(self, at_s: float) -> int:
        """Return how many entries are not older than this."""
        # The parent of several workers has a table too, but never counts.
        import numpy as np

        ends = self._begins + self._n_buckets * self._ways * _SLOT_BYTES
        slots = np.frombuffer(self._memory[self._begins : ends], np.dtype(_FIELDS))
        return int(np.count_nonzero((slots["sum"] != 0) & (slots["at_s"] >= at_s)))

    def _bucket(self, key: bytes) -> tuple[int, int]:
        size = self._ways * _SLOT_BYTES
        begins = self._begins + int.from_bytes(key[:4], "little") % self._n_buckets * size
        return begins, begins + size

    def _find(self, key: bytes, begins: int, ends: int) -> int:
        place = self._memory.find(key, begins, ends)
        # Bytes that span two slots could look like a key.
        return place if (place - begins) % _SLOT_BYTES == 0 else -1


def shared_block(max_sessions: int, key: bytes | None = None) -> SharedBlock:
    """Return memory for so many sessions, and for two entries of as many responses.

    key: what the secret of the digests is made of, so that other replicas make the same digests; None makes one.
    """
    return SharedBlock(SessionTable.n_bytes(3 * max_sessions), hashlib.sha256(key).digest() if key else None)
