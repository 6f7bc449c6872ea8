#!/usr/bin/env bash
# Runs the demo on manifests that other people wrote: one of each common kind. CORPUS names their folder.
set -euo pipefail
cd "$(dirname "$0")/.."

: "${CORPUS:?set CORPUS to a folder of manifests}"
[[ -d $CORPUS/ingress ]] && CORPUS=$CORPUS/ingress

files=(
	gateway-api-migrating-from-ingress-df9c47.yaml     # fan-out
	higress-httproute-hostname-same-namespace-879a37.yaml # hosts by name
	traefik-ingress-with-wildcard-host-4fb975.yaml     # wildcard
	ingress-nginx-multi-tls-510078.yaml                # TLS, two certificates
	contour-kuard-49a9fd.yaml                          # default backend
)
for file in "${files[@]}"; do
	echo "== $file: $(head -n 1 "$CORPUS/$file")"
	make --no-print-directory demo MANIFESTS="$CORPUS/$file" FILL=1
done
