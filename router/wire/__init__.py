"""Serve gRPC: convert messages to values and back, bound requests, and turn errors into statuses."""
