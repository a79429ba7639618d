"""Ask one candidate once: over OpenAI's protocol by our own client, or through LiteLLM."""
