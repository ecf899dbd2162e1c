#!/bin/sh
# Run a command with each file /run/secrets/NAME, capitals only, as the environment variable NAME.
# For programs that take a secret by the environment alone; the others read their file themselves.
set -eu
for file in "${SECRETS:-/run/secrets}"/[A-Z]*; do
  [ -f "$file" ] || continue
  export "$(basename "$file")=$(cat "$file")"
done
exec "$@"
