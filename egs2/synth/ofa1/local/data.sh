#!/usr/bin/env bash
# Makes the corpus: phrases of a small grammar, spoken by espeak-ng in many voices.
# shellcheck disable=SC2034 # not every corpus needs every option
set -euo pipefail

data_dir=""             # must stay empty: there is no corpus to point at
download_dir=downloads  # where the audio goes, in synth/
datadir=data            # where data directories go
nj=2                    # parallel jobs
train_utts=3500         # training utterances
valid_utts=150          # validation utterances
test_utts=300           # test utterances, voices and sentences unseen in training
test_spell_utts=100     # test utterances with spelled words
spell_share=0.1         # share of spelled words in training
seed=0                  # of sentences and voices
# End of options

# shellcheck source=/dev/null
. ./path.sh
# shellcheck source=/dev/null
. "${OFA_TEMPLATE}/utils/parse_options.sh"
parse_options local/data.sh "$@"
[ -z "${data_dir}" ] || usage_error "this corpus is made here: --data_dir has no meaning"

python3 "${OFA_ROOT}/local/make_synth.py" --data_dir "${datadir}" \
    --audio_dir "${download_dir}/synth" --nj "${nj}" \
    --train_utts "${train_utts}" --valid_utts "${valid_utts}" \
    --test_utts "${test_utts}" --test_spell_utts "${test_spell_utts}" \
    --spell_share "${spell_share}" --seed "${seed}"
