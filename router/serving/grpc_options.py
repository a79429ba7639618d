"""Define the options of our gRPC server, which bound messages, connections, streams and time."""

from __future__ import annotations

from router.wire.conversion import MAX_MESSAGE_BYTES

#: Largest request. It leaves room for batches and images; larger images can be sent over HTTP.
MAX_REQUEST_BYTES = 16 * 1024 * 1024

#: Most connections in all, and most concurrent requests of one connection, which is as many as a client of grpc opens.
MAX_CONNECTIONS, MAX_STREAMS = 4000, 1000

#: Milliseconds until a new connection must have said that it speaks HTTP/2, and until an idle one is closed.
HANDSHAKE_MS, IDLE_MS = 10_000, 75_000


def server_options(*, share_port: bool) -> list[tuple[str, int]]:
    """Return the options for `grpc.aio.server`.

    share_port: whether other processes of ours are bound to the same port (SO_REUSEPORT).
    """
    return [
        # Probing for bandwidth sends a ping with every message. It takes a fifth of a millisecond and gains nothing
        # for messages of a few kilobytes.
        ("grpc.http2.bdp_probe", 0),
        # Two servers on one port share its traffic without any error, which only workers of one parent should do.
        ("grpc.so_reuseport", int(share_port)),
        ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        # Compressed messages are refused, because 60 KB could unpack to 60 MB.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.http2.settings_timeout", HANDSHAKE_MS),
        ("grpc.max_connection_idle_ms", IDLE_MS),
    ]
