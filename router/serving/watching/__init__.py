"""Serve the operator's page beside a service, in a thread of its own."""
