"""Serve the HTTP API: read requests in the formats of OpenAI and Anthropic, decide, and answer in the same format."""
