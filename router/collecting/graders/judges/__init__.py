"""Graders that ask a judge: another model, which gets the answers as quoted data and must reply in a strict form."""
