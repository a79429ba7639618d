"""Processes and ports: the gRPC server, the HTTP server, workers, the event loop, Prometheus."""
