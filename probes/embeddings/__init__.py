"""Read embedding files of any size, score their rows, and select samples."""
