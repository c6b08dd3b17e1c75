#!/usr/bin/env bash
# Does pre-training help? CTC fine-tuning from the pre-trained upstream against the same
# network from random weights: same data and steps, three seeds, the learning rate chosen
# for each by the validation loss of seed 0; then random weights again with more epochs
# than the time of pre-training would buy. A tenth of the epochs of run.sh, so that it fits
# into an hour or two; needs stages 1 to 9 of run.sh. report/ is written again by
# stage 13 of run.sh.
#   ./run_ablation.sh [--asr_args ARGS] [--expdir DIR] [OPTION...]
# OPTIONs are those of run.sh for resources, such as --num_threads 1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" # the recipe
# shellcheck source=/dev/null
. ./path.sh
# shellcheck source=/dev/null
. "${OFA_TEMPLATE}/utils/parse_options.sh"

asr_args=""
expdir=exp
take_options asr_args expdir -- "$@"
rates="0.0005 0.001 0.002 0.004"
seeds="0 1 2"
epochs=3
# Stages 6 to 8 take 1.25 times as long as these epochs: 7 would be equal time.
longer_epochs=8
steps_per_epoch=385
pretrained=${expdir}/ssl_train_ssl_raw/upstream/config.yaml
random=${expdir}/random_upstream.yaml # a configuration without weights
if [ ! -e "${pretrained}" ]; then
    echo "$0: ${pretrained} is missing: run stages 1 to 9 of run.sh, or give --expdir" >&2
    exit 1
fi

# fine_tune NAME START RATE SEED EPOCHS: train and decode asr_ablation_NAME
fine_tune() {
    local name=$1 start=$2 rate=$3 seed=$4 epochs=$5 steps args upstream=()
    steps=$((epochs * steps_per_epoch))
    args="--seed ${seed} --max_epoch ${epochs} --optim_conf lr=${rate}"
    args+=" --scheduler_conf warmup_steps_list=[0,200,${steps}]"
    args+=" --scheduler_conf warmup_lr_list=[0.0,${rate},0.00002]"
    if [ "${start}" = random ]; then
        # There are no features to protect while the head is young.
        args+=" --frontend_conf freeze_updates=0"
        upstream=(--pretrained_upstream "${random}")
    fi
    ./run.sh --stage 10 --stop_stage 13 --skip_stages "11 12" --expdir "${expdir}" \
        --asr_args "${args}${asr_args:+ ${asr_args}}" \
        --asr_tag "ablation_${name}" --s2s_tag none --adaptive_configs "" \
        --inference_lams "0 0.643 0.857" --test_sets test \
        ${upstream[@]+"${upstream[@]}"} ${rest[@]+"${rest[@]}"}
}

valid_loss() { # NAME: of the last epoch
    grep -o '\[valid\].*' "${expdir}/asr_ablation_$1/train.log" | tail -n 1 |
        grep -o ', loss=[0-9.e+]*' | cut -d= -f2
}

cp "${pretrained}" "${random}"
decoded=()
for start in pretrained random; do
    best=
    for rate in ${rates}; do
        fine_tune "${start}_lr${rate}_seed0" "${start}" "${rate}" 0 "${epochs}"
        loss=$(valid_loss "${start}_lr${rate}_seed0")
        echo "${start}: learning rate ${rate}: validation loss ${loss}"
        if [ -z "${best}" ] || awk "BEGIN {exit !(${loss} < ${least})}"; then
            best=${rate}
            least=${loss}
        fi
    done
    for seed in ${seeds}; do
        name=${start}_lr${best}_seed${seed}
        fine_tune "${name}" "${start}" "${best}" "${seed}" "${epochs}"
        decoded+=("${start}@${seed}=${expdir}/asr_ablation_${name}/decode_ctc")
        if [ "${start}" = random ]; then
            name=random_lr${best}_epochs${longer_epochs}_seed${seed}
            fine_tune "${name}" random "${best}" "${seed}" "${longer_epochs}"
            decoded+=("random, ${longer_epochs} epochs@${seed}=${expdir}/asr_ablation_${name}/decode_ctc")
        fi
    done
done
python3 -m espnet_ofa.bin.report --decode_dirs "${decoded[@]}" --out "${expdir}/report_ablation"
