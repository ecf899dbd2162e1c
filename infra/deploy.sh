#!/bin/sh
# Tell a Prefect server what there is to run: the pool, its limit, the deployments, the automation.
# From the project's root, with PREFECT_API_URL and PREFECT_API_AUTH_STRING; again after an upgrade.
set -eu

quietly() { # what is said of a command that fails
    said=$("$@" 2>&1) || {
        echo "$said" >&2
        exit 1
    }
}

quietly prefect work-pool create rum --type process --overwrite
quietly prefect work-pool set-concurrency-limit rum 1 # one run at a time on the store
quietly prefect --no-prompt deploy --prefect-file infra/prefect.yaml --all
# not there the first time
prefect --no-prompt automation delete "rum without a heartbeat" >/dev/null 2>&1 || true
quietly prefect automation create --from-file infra/automations.yaml
echo "deployed: rum/nightly, rum/train and rum backfill/backfill, one run at a time in the pool rum"
