#!/usr/bin/env bash
# Does a learned lambda depend on where it started? Models with an adaptive lambda, from
# three starts: CTC with a price on units and without one, and joint CTC/attention. The
# report shows where each went, and the frame periods that were measured. Needs stages 1 to
# 11 of run.sh. What is finished is left as it is, so the script may be interrupted and
# called again. exp/report is written again by stage 13 of run.sh.
#   ./run_starts.sh [--starts "0.2 0.643 0.95"] [--configs "adaptive s2s_adaptive"]
#       [--asr_tag TAG] [--s2s_tag TAG] [OPTION...]
# configs: conf/train_asr_NAME.yaml. TAGs are those of the models to start from; OPTIONs are
# those of ofa.sh's resources, such as --num_threads 1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=/dev/null
. ./path.sh
# shellcheck source=/dev/null
. "${OFA_TEMPLATE}/utils/parse_options.sh"

starts="0.2 0.643 0.95"
configs="adaptive_price adaptive s2s_adaptive"
asr_tag=train_asr_ctc_raw_en_bpe200
s2s_tag=train_asr_s2s_raw_en_bpe200
take_options starts configs asr_tag s2s_tag -- "$@"

decoded=()
for config in ${configs}; do
    tag=${asr_tag} best=valid.cer_ctc.ave.pth
    if [[ ${config} == s2s_* ]]; then
        tag=${s2s_tag} best=valid.acc.ave.pth
    fi
    if [ ! -e "exp/asr_${tag}/${best}" ]; then
        echo "$0: exp/asr_${tag}/${best} is missing; run ./run.sh --stop_stage 11 first" >&2
        exit 1
    fi
    for start in ${starts}; do
        name=starts_${config}_${start}
        ./run.sh --stage 10 --stop_stage 13 --skip_stages "11 12" --test_sets test \
            --asr_config "conf/train_asr_${config}.yaml" --asr_tag "${name}" \
            --asr_args "--init_param exp/asr_${tag}/${best} --frontend_conf lam_conf.init=${start}" \
            --inference_asr_model "${best}" --s2s_tag none --s2s_adaptive_configs "" \
            --adaptive_configs "" --inference_lams own ${rest[@]+"${rest[@]}"}
        decoded+=("${config}@${start}=exp/asr_${name}/decode_ctc")
    done
done
python3 -m espnet_ofa.bin.report --decode_dirs "${decoded[@]}" --out exp/report_starts
