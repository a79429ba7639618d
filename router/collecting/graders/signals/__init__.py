"""Graders that read signals: the token probabilities of the candidate, and what people did with an answer."""
