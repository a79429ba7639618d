"""Import what tracing programs export: calls of models as runs, spans or requests, with feedback on some of them."""
