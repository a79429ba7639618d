"""Reading a request: what the human asks, what answering needs, the language, and the session it belongs to."""
