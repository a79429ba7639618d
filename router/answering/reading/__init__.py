"""Read what upstreams send within bounds: JSON, large answers, and server-sent events."""
