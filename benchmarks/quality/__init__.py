"""Hold the parts of `benchmarks.bench_quality`: pairs of models, transfer, many models, the page of results."""
