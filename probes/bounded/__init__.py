"""Files that others wrote, read with bounds: no number in them becomes a size, a depth or an index unchecked."""
