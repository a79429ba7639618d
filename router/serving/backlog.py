"""Stop accepting connections on a port without resetting those that clients already believe to be open."""

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

#: Seconds in which a server accepts the connections that wait in the backlog and handshakes under way complete.
SETTLE_S = 0.1

_SO_ATTACH_FILTER = 26  # Python's socket module has no name for it.

#: A socket filter (classic BPF) that drops the segments that open a connection and lets all others pass. Its four
#: steps: load the byte of the TCP flags; skip the next step if SYN is not set; drop the segment; let it pass.
_DROP_SYN = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


def stop_accepting(ports: Iterable[int]) -> bool:
    """Make the kernel ignore new connections to this process's listeners on these TCP ports. Return whether it does.

    Closing a listener resets the connections in its backlog, although the kernel may have told their clients that they
    are connected, and although another process may listen on the same port (SO_REUSEPORT). Therefore a listener first
    gets a filter, and then `SETTLE_S` seconds to accept the connections that wait. A client that is ignored tries again
    after a second, as TCP does; it then reaches another process, or is refused if there is none.

    This works on Linux only; elsewhere it returns False.
    """
    wanted, ignored = set(ports), False
    for listener in _listeners():
        with listener:
            if listener.getsockname()[1] in wanted:
                ignored = _ignore_syn(listener) or ignored
    return ignored


def _listeners() -> Iterator[socket.socket]:
    """Yield a duplicate of every TCP listener of this process, gRPC's included. The caller must close it."""
    if not sys.platform.startswith("linux"):
        return
    for entry in Path("/proc/self/fd").iterdir():
        # Some descriptors are closed meanwhile, among them that of the directory itself.
        with contextlib.suppress(OSError):
            number = int(entry.name)
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                found = socket.socket(fileno=os.dup(number))
                if found.family in (socket.AF_INET, socket.AF_INET6) and _is_listening(found):
                    yield found
                else:
                    found.close()


def _is_listening(found: socket.socket) -> bool:
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
