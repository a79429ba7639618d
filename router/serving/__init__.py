"""Run the service: its processes, its gRPC and HTTP ports, its shutdown and its metrics."""
