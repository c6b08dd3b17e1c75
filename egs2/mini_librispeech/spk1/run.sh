#!/usr/bin/env bash
# Who speaks, of the speakers of Mini LibriSpeech (a closed set), in three seconds and at
# any frame period. Needs an upstream, e.g. of ../ofa1:
#   ./run.sh --upstream ../ofa1/exp/ssl_train_ssl_raw/upstream
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

./cls.sh "$@"
