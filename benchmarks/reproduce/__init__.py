"""Hold the parts of `benchmarks.reproduce_elle`: data that every machine has, small models, controls, report."""
