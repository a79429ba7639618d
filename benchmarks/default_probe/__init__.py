"""Fit the probe of the embedded default policy on many kinds of request, and measure it.

python -m benchmarks.default_probe fit [--out DIR] [--without-anchors]
python -m benchmarks.default_probe measure > default.json
"""
