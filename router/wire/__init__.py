"""Protobuf: messages to values and back, errors to gRPC statuses, the servicer."""
