#!/bin/sh
# Put a new policy to work and take it back: versions in a store, one of them active.
# Run it by `sh examples/journeys/roll_back.sh`. It writes to the folder `journey`. docs/change.md explains every step.
set -eu
mkdir -p journey
rm -rf journey/store

# The policy that serves, and a new one that sends more to the strong models.
elle policy new > journey/before.yaml
sed 's/thresholds: .*/thresholds: [0.05, 0.12]/' journey/before.yaml > journey/after.yaml

elle policy activate journey/before.yaml --store journey/store --reason "the first one" --expect none
elle policy activate journey/after.yaml --store journey/store --reason "fewer losses"

# A service that was started with `elle serve --store journey/store` follows within two seconds, and so does the way back.
elle policy list --store journey/store
elle policy rollback default --store journey/store --reason "it costs too much"
elle policy history --store journey/store
