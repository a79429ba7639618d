"""Other doors to the same engine: the HTTP API of OpenAI, the external processor of Envoy, a plugin for LiteLLM."""
