"""Other people's doors to the same engine: OpenAI bodies, Envoy, LiteLLM. Imports `router`; only the CLI imports it."""
