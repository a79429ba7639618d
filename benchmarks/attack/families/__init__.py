"""One module for each family of attacks; `benchmarks.attack` says what a module holds."""
