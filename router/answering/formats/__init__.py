"""Read the answers of upstreams in each API format: their text, their tokens, and whether they are complete."""
