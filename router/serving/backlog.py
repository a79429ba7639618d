"""Take no more connections on a port without losing those that its clients believe to have."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import stat
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

#: Time in which a server accepts what waits in the backlog, and a handshake that was under way comes to its end.
SETTLE_S = 0.1

_SO_ATTACH_FILTER = 26  # the socket module does not name it

#: A socket filter (classic BPF) that drops the segments that open a connection and lets all others pass: load the
#: byte of the TCP flags; where SYN is not among them go on; drop; pass.
_DROP_SYN = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


def stop_taking(ports: Iterable[int]) -> bool:
    """Let the kernel ignore new connections to this process's listeners on these TCP ports; whether it does.

    A listener that is closed resets the connections in its backlog, although their clients may have been told that they
    are connected, and although another process listens on the same port (SO_REUSEPORT). So before it is closed it gets
    a filter, and `SETTLE_S` to accept what waits. A client that is ignored asks again after a second, as TCP does, and
    reaches another process then, or is refused if there is none.

    Linux only; False where the kernel cannot do it.
    """
    wanted, ignored = set(ports), False
    for listener in _listeners():
        with listener:
            if listener.getsockname()[1] in wanted:
                ignored = _ignore_syn(listener) or ignored
    return ignored


def _listeners() -> Iterator[socket.socket]:
    """Every TCP listener of this process, gRPC's included, as a duplicate to be closed."""
    if not sys.platform.startswith("linux"):
        return
    for entry in Path("/proc/self/fd").iterdir():
        # What was closed since, and the directory itself.
        with contextlib.suppress(OSError):
            number = int(entry.name)
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                found = socket.socket(fileno=os.dup(number))
                if found.family in (socket.AF_INET, socket.AF_INET6) and _listens(found):
                    yield found
                else:
                    found.close()


def _listens(found: socket.socket) -> bool:
    return found.type == socket.SOCK_STREAM and bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _ignore_syn(listener: socket.socket) -> bool:
    code = b"".join(struct.pack("HBBI", *step) for step in _DROP_SYN)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HL", len(_DROP_SYN), ctypes.addressof(buffer))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    except OSError:
        return False
    return True
