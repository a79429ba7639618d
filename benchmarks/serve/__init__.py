"""Hold the parts of `make bench-serve` and of the load tests: servers, a load client, figures of processes."""
