"""Parts of `benchmarks.reproduce_elle`: data present on every machine, small models, controls, report."""
