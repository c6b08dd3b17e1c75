#!/usr/bin/env bash
# Keyword spotting on Speech Commands: ten words, the unknown and silence, at any frame
# period. Needs an upstream, e.g. of ../../mini_librispeech/ofa1:
#   ./run.sh --upstream ../../mini_librispeech/ofa1/exp/ssl_train_ssl_raw/upstream
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

./cls.sh "$@"
