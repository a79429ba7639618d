#!/bin/sh
# Add a third model to a policy of two, with 100 labels of it. Run `sh examples/journeys/own_scores.sh` first.
# Run it by `sh examples/journeys/third_model.sh`. docs/tune.md explains every step.
set -eu
command -v elle > /dev/null || { echo "elle is not on the PATH; run \`. .venv/bin/activate\` first." >&2; exit 1; }
[ -e journey/probe ] || { echo "Run \`sh examples/journeys/own_scores.sh\` in this folder first." >&2; exit 1; }

# 100 prompts that the new model answered are enough to know what it is good at.
elle import journey/fresh-ratings.csv --column prompt=Question --column model=Model --score-name Rating --scale 1..5 \
  --out journey/fresh.jsonl --force
elle fit journey/fresh.jsonl --add fresh --prior journey/probe --out journey/probe-of-three --force

# A certificate needs other prompts, which all three models answered.
elle import journey/all-three.csv --column prompt=Question --column model=Model --score-name Rating --scale 1..5 \
  --out journey/all-three.jsonl --force
elle tune journey/probe-of-three --calibration journey/all-three.jsonl --models small,fresh,large --max-loss 0.2 \
  --out journey/policy-of-three.yaml --force

elle decide --policy journey/policy-of-three.yaml "Prove theorem 9 of part 5 for every finite group."
