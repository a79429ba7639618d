"""Read files that others wrote with bounds: no number in them becomes a size, a depth or an index unchecked."""
