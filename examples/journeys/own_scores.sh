#!/bin/sh
# From a CSV file of your own ratings to a certified policy.
# Run it by `sh examples/journeys/own_scores.sh`. It writes to the folder `journey`. docs/tune.md explains every step.
set -eu
command -v elle > /dev/null || { echo "elle is not on the PATH; run \`. .venv/bin/activate\` first." >&2; exit 1; }
python "$(dirname "$0")/sample.py" journey

# The columns of the spreadsheet are called as you like; ratings from 1 to 5 become scores from 0 to 1.
elle import journey/ratings.csv --column prompt=Question --column model=Model --score-name Rating --scale 1..5 \
  --out journey/outcomes.jsonl --force
elle import journey/later.csv --column prompt=Question --column model=Model --score-name Rating --scale 1..5 \
  --out journey/later.jsonl --force

# Half of the prompts fit the probe, and the other half certify that the policy loses at most 0.1.
elle fit journey/outcomes.jsonl --holdout 0.5 --out journey/probe --force
elle tune journey/probe journey/outcomes.jsonl --weak small --strong large --max-loss 0.1 --out journey/policy.yaml --force

# What the policy would have done with newer prompts.
elle evaluate --policy journey/policy.yaml journey/later.jsonl
