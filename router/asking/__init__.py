"""Read a request: find what the human asks, what answering needs, the language, and the session."""
