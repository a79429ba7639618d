#!/bin/sh
# Put a new policy to work and take it back: a canary, and versions in a store of which one is active.
# Run it by `sh examples/journeys/roll_back.sh`. It writes to the folder `journey`. docs/rollout.md and docs/change.md
# explain every step.
set -eu
command -v elle > /dev/null || { echo "elle is not on the PATH; run \`. .venv/bin/activate\` first." >&2; exit 1; }
mkdir -p journey
rm -rf journey/store journey/canary.json

# The policy that serves, and a new one that sends more to the strong models.
elle policy new > journey/before.yaml
sed 's/^name: .*/name: after/; s/thresholds: .*/thresholds: [0.05, 0.12]/' journey/before.yaml > journey/after.yaml
sed 's/^name: .*/name: default/' journey/after.yaml > journey/next.yaml

# Try it first. This service decides every request by the new policy once more, for its metrics, and nothing follows:
#     elle serve --policy journey/before.yaml --shadow journey/after.yaml --metrics-port 9464
# A service with both policies gives the new one the share of the requests that the canary's file says:
#     elle serve --policy journey/before.yaml --policy journey/after.yaml --ledger journey/ledger.db \
#       --canary journey/canary.json
elle canary start after --base default --share 5 --max-loss 0.02 --reason "fitted on May" --state journey/canary.json
elle canary status --state journey/canary.json
elle canary stop --reason "decided otherwise" --state journey/canary.json

# Or put it to work at once, by a store that keeps every version.
elle policy activate journey/before.yaml --store journey/store --reason "the first one" --expect none
elle policy activate journey/next.yaml --store journey/store --reason "fewer losses"

# A service that was started with `elle serve --store journey/store` follows within two seconds, and so does the way back.
elle policy list --store journey/store
elle policy rollback default --store journey/store --reason "it costs too much"
elle policy history --store journey/store
