#!/bin/sh
# Tell a Prefect server what there is to run: the pool, its limit, the deployments, the automation.
# From the project's root, with PREFECT_API_URL and PREFECT_API_AUTH_STRING; again after an upgrade.
set -eu
prefect work-pool create rum --type process --overwrite
prefect work-pool set-concurrency-limit rum 1 # one run at a time on the store
prefect --no-prompt deploy --prefect-file infra/prefect.yaml --all
prefect --no-prompt automation delete "rum without a heartbeat" || true # not there the first time
prefect automation create --from-file infra/automations.yaml
