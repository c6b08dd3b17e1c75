#!/usr/bin/env bash
# The main comparison: one once-for-all model against a model for each frame period, all
# pre-trained and fine-tuned (CTC) on the same data for the same number of steps, with
# several seeds for both. Needs stages 1 to 7 and 9 of run.sh. What is finished is left as
# it is, so the script may be interrupted, and called again with more systems or seeds.
#   ./run_systems.sh [--systems "ofa none mean2"] [--seeds "0 1 2"] [OPTION...]
# OPTIONs are those of ofa.sh's resources, such as --num_threads 1. Systems are those of
# --system there. About 9 minutes each on two cores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

systems="ofa none mean2 mean3 mean4"
seeds="0 1 2"
lams="0 0.43 0.643 0.77 0.857 0.92 1"
while [ $# -ge 2 ]; do
    case $1 in
        --systems) systems=$2 ;;
        --seeds) seeds=$2 ;;
        *) break ;;
    esac
    shift 2
done

# train SYSTEM SEED [OPTION...]: exp/{ssl,asr}_system_SYSTEM_seedSEED
train() {
    local system=$1 seed=$2 upstream=$1
    shift 2
    case ${system} in
        squeeze) upstream=stochastic ;; # fine-tuned to one setting
        ofa_at_*) upstream=ofa ;;       # to one lambda
    esac
    ./run.sh --stage 8 --stop_stage 13 --skip_stages "9 11 12" --test_sets test \
        --system "${system}" --ssl_tag "system_${upstream}_seed${seed}" \
        --ssl_args "--seed ${seed}" --asr_tag "system_${system}_seed${seed}" \
        --asr_args "--seed ${seed}" --s2s_tag none --adaptive_configs "" \
        --inference_lams "${lams}" "$@"
}

for seed in ${seeds}; do
    for system in ${systems}; do
        train "${system}" "${seed}" "$@"
    done
done

# All that is finished, of this call and of earlier ones.
decoded=()
for done in exp/asr_system_*_seed*/decode_ctc/.done; do
    dir=${done%/.done}
    name=${dir#exp/asr_system_}
    name=${name%/decode_ctc}
    case ${name} in
        ofa_at_*) name=ofa_at@${name#ofa_at_} ;; # a model for each lambda, one curve
        *) name=${name/_seed/@} ;;
    esac
    decoded+=("${name}=${dir}")
done
# shellcheck source=/dev/null
. ./path.sh
python3 -m espnet_ofa.bin.report --decode_dirs "${decoded[@]}" --out exp/report_systems
