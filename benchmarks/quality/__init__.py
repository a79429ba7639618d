"""Parts of `benchmarks.bench_quality`: pairs of models, transfer between tasks, many models, the page of results."""
