"""Hold the attacks, one module for each family; `benchmarks.attack` says what a module holds."""
