"""Serve as an application of Ray Serve: the same servicer in replicas that Ray starts, scales and replaces."""
