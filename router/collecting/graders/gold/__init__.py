"""Graders that ask no model: they compare an answer with what the data say about the right one."""
