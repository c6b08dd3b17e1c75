#!/usr/bin/env bash
# Does a learned lambda depend on where it started? CTC models with an adaptive lambda,
# from three starts, with a price on units and without one; the report shows where each
# went, and the frame periods that were measured. Needs stages 1 to 10 of run.sh. What is
# finished is left as it is, so the script may be interrupted and called again. exp/report
# is written again by stage 13 of run.sh.
#   ./run_starts.sh [--starts "0.2 0.643 0.95"] [OPTION...]
# OPTIONs are those of ofa.sh's resources, such as --num_threads 1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

starts="0.2 0.643 0.95"
if [ "${1:-}" = --starts ]; then
    starts=$2
    shift 2
fi
first=exp/asr_train_asr_ctc_raw_en_bpe200/valid.cer_ctc.ave.pth
if [ ! -e "${first}" ]; then
    echo "$0: ${first} is missing; run ./run.sh --stage 1 --stop_stage 10 first" >&2
    exit 1
fi

decoded=()
for config in adaptive_price adaptive; do
    for start in ${starts}; do
        tag=starts_${config}_${start}
        ./run.sh --stage 10 --stop_stage 13 --skip_stages "11 12" --test_sets test \
            --asr_config "conf/train_asr_${config}.yaml" --asr_tag "${tag}" \
            --asr_args "--init_param ${first} --frontend_conf lam_conf.init=${start}" \
            --s2s_tag none --adaptive_configs "" --inference_lams own "$@"
        decoded+=("${config}@${start}=exp/asr_${tag}/decode_ctc")
    done
done
# shellcheck source=/dev/null
. ./path.sh
python3 -m espnet_ofa.bin.report --decode_dirs "${decoded[@]}" --out exp/report_starts
