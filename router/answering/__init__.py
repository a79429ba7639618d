"""Get the answer of a decided request: attempts, fallback, circuit breakers, upstreams."""
