"""Turn text into features: find the encoder's files, and compute its forward pass in one of several runtimes."""
