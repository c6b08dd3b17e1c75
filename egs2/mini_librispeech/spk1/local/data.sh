#!/usr/bin/env bash
# Mini LibriSpeech: data/{train,valid,test} of the same speakers, the speaker as text.
# shellcheck disable=SC2034 # options of every corpus
set -euo pipefail

data_dir=""             # where the corpus is; by default from db.sh, else downloaded
download_dir=downloads  # where downloads and pieces of utterances go
datadir=data            # where data directories go
nj=2                    # parallel jobs
parts="train-clean-5 dev-clean-2|dev-clean"  # whose speakers; a|b: a or else b
seconds=3.0             # length of the pieces; 0: whole utterances
test_share=0.2          # of each speaker's utterances
valid_share=0.1         # of each speaker's utterances
skip_bad=false          # leave damaged files out instead of stopping
# End of options

# shellcheck source=/dev/null
. ./path.sh
# shellcheck source=/dev/null
. ./db.sh
# shellcheck source=/dev/null
. "${OFA_TEMPLATE}/utils/parse_options.sh"
parse_options local/data.sh "$@"

options=(--nj "${nj}" --seconds "${seconds}" --test_share "${test_share}"
    --valid_share "${valid_share}")
if [ "${skip_bad}" = true ]; then
    options+=(--skip_bad)
fi
found=$(python3 "${OFA_ROOT}/local/download.py" --corpus mini_librispeech \
    --parts "${parts}" --download_dir "${download_dir}" \
    --corpus_dir "${data_dir:-${MINI_LIBRISPEECH}}")
python3 "${OFA_ROOT}/local/speakers.py" --corpus_dir "${found}" --parts "${parts}" \
    --out_dir "${datadir}" --audio_dir "${download_dir}/pieces" "${options[@]}"
