#!/bin/sh
# Score and curate a folder of embeddings: no prompt and no language model is involved.
# Run it by `sh examples/journeys/embeddings.sh`. It writes to the folder `journey`. docs/method.md explains every step.
set -eu
command -v elle > /dev/null || { echo "elle is not on the PATH; run \`. .venv/bin/activate\` first." >&2; exit 1; }
python "$(dirname "$0")/sample.py" journey

# Learn what a model's loss looks like from pairs of embedding and loss.
elle fit-pairs journey/pairs.npz --out journey/loss-probe --force

# Predict the loss of every row of every file, in constant memory, and choose rows by it.
for file in journey/embeddings/*.npy; do
  elle score "$file" --probe journey/loss-probe --out "${file%.npy}.parquet" --force
  elle select keep "${file%.npy}.parquet" --drop-easiest 0.1 --drop-hardest 0.05 --out "${file%.npy}-kept.parquet" --force
  elle select suspicious "${file%.npy}.parquet" --share 0.01 --out "${file%.npy}-to-look-at.parquet" --force
done
