#!/bin/sh
# From a log of prompts without labels to a certified policy, with simulated models: no key, no network, no cost.
# Run it by `sh examples/journeys/from_log.sh`. It writes to the folder `journey`. docs/collect.md explains every step.
set -eu
command -v elle > /dev/null || { echo "elle is not on the PATH; run \`. .venv/bin/activate\` first." >&2; exit 1; }
python "$(dirname "$0")/sample.py" journey

# Ask both models, grade, fit, tune, certify, evaluate, report. With real models: delete --offline, and --yes too, so that
# the plan with its cost is shown before anything is asked.
elle start journey/prompts.jsonl --strong gpt-5 --weak gpt-5-mini --max-loss 0.1 --out journey/first --offline --yes

elle decide --policy journey/first/policy.yaml "What is 16 plus 1 if you add the one to the other?"
elle explain --policy journey/first/policy.yaml "Prove theorem 9 of part 1 for every finite group."
