"""Read embedding files of any size, score their rows, fit a ridge to them, and select samples."""
