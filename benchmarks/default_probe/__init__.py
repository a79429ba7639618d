"""Fit the probe of the embedded default policy on many kinds of request, and measure it.

`kinds` learns only the known kinds of the saved probe anew, and keeps everything else of it to the bit.

python -m benchmarks.default_probe fit [--out DIR] [--without-anchors]
python -m benchmarks.default_probe kinds [--out DIR] [--without-anchors]
python -m benchmarks.default_probe measure > default.json
"""
