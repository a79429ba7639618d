"""Collect outcomes from a log: ask the candidates, grade their answers, and let people check the grades."""
