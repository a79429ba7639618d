"""Ask one candidate once, either over OpenAI's protocol by our own client or through LiteLLM."""
