"""Scripts that write parts of this repository out of the program."""
