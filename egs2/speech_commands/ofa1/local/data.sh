#!/usr/bin/env bash
# Speech Commands: data/{train,valid,test}, the word as text.
# shellcheck disable=SC2034 # options of every corpus
set -euo pipefail

data_dir=""             # where the corpus is; by default from db.sh, else downloaded
download_dir=downloads  # where downloads and clips of silence go
datadir=data            # where data directories go
nj=2                    # parallel jobs
classes=12              # 12: ten words, _unknown_, _silence_; 35: every word
seed=0                  # of which other words and which silence are drawn
skip_bad=false          # leave damaged files out instead of stopping
# End of options

# shellcheck source=/dev/null
. ./path.sh
# shellcheck source=/dev/null
. ./db.sh
# shellcheck source=/dev/null
. "${OFA_TEMPLATE}/utils/parse_options.sh"
parse_options local/data.sh "$@"

options=(--nj "${nj}" --classes "${classes}" --seed "${seed}")
if [ "${skip_bad}" = true ]; then
    options+=(--skip_bad)
fi
found=${data_dir:-${SPEECH_COMMANDS}}
if [ -z "${found}" ]; then
    found=$(python3 "${OFA_ROOT}/local/download.py" --corpus speech_commands \
        --download_dir "${download_dir}/speech_commands")
fi
python3 "${OFA_ROOT}/local/speech_commands.py" --corpus_dir "${found}" \
    --out_dir "${datadir}" --audio_dir "${download_dir}/silence" "${options[@]}"
