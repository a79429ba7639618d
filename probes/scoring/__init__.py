"""Score one prompt as a request needs it: in one call of C, or of numpy without a compiler."""
