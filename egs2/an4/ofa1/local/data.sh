#!/usr/bin/env bash
# AN4: data/{train,valid,test}; validation speakers are taken from its training part.
# shellcheck disable=SC2034 # not every corpus needs every option
set -euo pipefail

data_dir=""             # where the corpus is; by default AN4 of db.sh, else downloaded
download_dir=downloads  # where downloads go
datadir=data            # where data directories go
nj=2                    # parallel jobs
valid_speakers=6        # speakers for validation
skip_bad=false          # leave damaged files out instead of stopping
# End of options

# shellcheck source=/dev/null
. ./path.sh
# shellcheck source=/dev/null
. ./db.sh
# shellcheck source=/dev/null
. "${OFA_TEMPLATE}/utils/parse_options.sh"
parse_options local/data.sh "$@"

options=()
if [ "${skip_bad}" = true ]; then
    options+=(--skip_bad)
fi
corpus=$(python3 "${OFA_ROOT}/local/download.py" --corpus an4 \
    --download_dir "${download_dir}" --corpus_dir "${data_dir:-${AN4}}")
python3 "${OFA_ROOT}/local/prepare_an4.py" --corpus_dir "${corpus}" \
    --data_dir "${datadir}" --audio_dir "${download_dir}/an4_flac" \
    --valid_speakers "${valid_speakers}" --nj "${nj}" ${options[@]+"${options[@]}"}
