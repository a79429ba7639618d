"""Processes and ports: settings, the gRPC and the HTTP server, worker processes, shutdown, metrics."""
