#!/usr/bin/env bash
# Does a learned lambda depend on where it started? Models with an adaptive lambda, from
# three starts: CTC with a price on units and without one, and joint CTC/attention; then
# lambda alone, on the validation set. The report shows where each went, and the frame
# periods that were measured. Needs stages 1 to 11 of run.sh. What is finished is left as
# it is, so the script may be interrupted and called again. report/ is written again by stage
# 13 of run.sh.
#   ./run_starts.sh [--starts "0.2 0.643 0.95"] [--configs "adaptive s2s_adaptive"]
#       [--asr_tag TAG] [--s2s_tag TAG] [--asr_args ARGS] [--expdir DIR]
#       [OPTION...]
# configs: conf/train_asr_NAME.yaml. TAGs are those of the models to start from; OPTIONs are
# those of run.sh for resources, such as --num_threads 1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" # the recipe
# shellcheck source=/dev/null
. ./path.sh
# shellcheck source=/dev/null
. "${OFA_TEMPLATE}/utils/parse_options.sh"

starts="0.2 0.643 0.95"
configs="adaptive_price adaptive s2s_adaptive adaptive_valid s2s_adaptive_valid"
asr_tag=train_asr_ctc_raw_en_bpe200
s2s_tag=train_asr_s2s_raw_en_bpe200
asr_args=""
expdir=exp
take_options starts configs asr_tag s2s_tag asr_args expdir -- "$@"

choose() { # CONFIG: tag, checkpoint and decoding of the model that it starts from
    tag=${asr_tag} best=valid.cer_ctc.ave.pth search=decode_ctc
    if [[ $1 == s2s_* ]]; then
        tag=${s2s_tag} best=valid.acc.ave.pth search=decode_s2s
    fi
    first=${expdir}/asr_${tag}/${best}
}

for config in ${configs}; do
    choose "${config}"
    if [ ! -e "${first}" ]; then
        echo "$0: ${first} is missing: train it (stages 1 to 11 of run.sh), or give" \
            "--asr_tag and --s2s_tag" >&2
        exit 1
    fi
done
decoded=()
for config in ${configs}; do
    choose "${config}"
    for start in ${starts}; do
        name=start${start}_${config}_${tag}
        ./run.sh --stage 10 --stop_stage 13 --skip_stages "11 12" --test_sets test \
            --expdir "${expdir}" ${rest[@]+"${rest[@]}"} \
            --asr_config "conf/train_asr_${config}.yaml" --asr_tag "${name}" \
            --asr_args "--init_param ${first} --frontend_conf lam_conf.init=${start} ${asr_args}" \
            --inference_asr_model "${best}" --inference_config "conf/${search}.yaml" \
            --s2s_tag none --s2s_adaptive_configs "" --adaptive_configs "" \
            --inference_lams own
        decoded+=("${config}@${start}=${expdir}/asr_${name}/${search}")
    done
done
python3 -m espnet_ofa.bin.report --decode_dirs "${decoded[@]}" \
    --out "${expdir}/report_starts_${asr_tag}"
