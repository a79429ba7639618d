"""How our gRPC server is set: what it takes of a message, a connection and a client."""

from __future__ import annotations

from router.wire.conversion import MAX_MESSAGE_BYTES

#: Largest request: room for batches and pictures. Larger pictures come over HTTP.
MAX_REQUEST_BYTES = 16 * 1024 * 1024

#: Connections in all, and requests of one at a time: as many as grpc's clients open streams without being told.
MAX_CONNECTIONS, MAX_STREAMS = 4000, 1000

#: Milliseconds until a connection has said that it speaks HTTP/2, and for which it may have nothing to ask.
HANDSHAKE_MS, IDLE_MS = 10_000, 75_000


def server_options(*, share_port: bool) -> list[tuple[str, int]]:
    """Options for `grpc.aio.server`.

    share_port: whether other processes of ours are bound to the same port (SO_REUSEPORT).
    """
    return [
        # Probing for bandwidth sends a ping beside every message: a fifth of a millisecond here, for nothing on
        # messages of a few kilobytes.
        ("grpc.http2.bdp_probe", 0),
        # Two servers on one port share its traffic without a word: only workers of one parent may.
        ("grpc.so_reuseport", int(share_port)),
        ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        # Nothing but plain messages: one of 60 KB would unpack to 60 MB.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.http2.settings_timeout", HANDSHAKE_MS),
        ("grpc.max_connection_idle_ms", IDLE_MS),
    ]
