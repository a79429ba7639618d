"""The gRPC service: protobuf messages to values and back, bounds on requests, errors as statuses, the methods."""
