"""Embedding files of any size: reading, scoring and selecting samples."""
