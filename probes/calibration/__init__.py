"""Maps from a predicted loss to a probability."""
