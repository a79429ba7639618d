"""Hold the port that several processes share, and stop accepting on it without resetting connections."""

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

from router.errors import ConfigError

#: Seconds in which a server accepts the connections that wait in the backlog and handshakes under way complete.
SETTLE_S = 0.1

_SO_ATTACH_FILTER = 26  # Python's socket module has no name for it.

#: A socket filter (classic BPF) that drops the segments that open a connection and lets all others pass. Its four
#: steps: load the byte of the TCP flags; skip the next step if SYN is not set; drop the segment; let it pass.
_DROP_SYN = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


def authority(host: str, port: int) -> str:
    """Return `host:port` as addresses write it; an IPv6 host is put into brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextlib.contextmanager
def reserved_port(host: str, port: int, option: str) -> Iterator[int]:
    """Hold the port that the workers share while the context lasts. Yield it; `port` 0 takes a free one.

    option: the option of `elle serve` that sets the port.

    The socket does not listen. It only makes sure that no other program takes the port while no worker runs.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as held:
        try:
            # Bind once without SO_REUSEPORT: otherwise a foreign server that shares the port would go unnoticed.
            with socket.socket(family, socket.SOCK_STREAM) as alone:
                alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                alone.bind((host, port))
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host}:{port} ({error.strerror}); stop what holds the port, or choose another "
                f"one ({option}; 0 takes a free one) or another address of this machine (--host)."
            ) from error
        yield int(held.getsockname()[1])


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
