"""Parts of `make bench-serve` and of the load tests: servers, a load client, what the kernel says of a process."""
