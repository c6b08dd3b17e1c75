#!/usr/bin/env bash
# The main comparison: one once-for-all model against a model for each frame period, all
# pre-trained and fine-tuned on the same data for the same number of steps, with several
# seeds. Needs stages 1 to 7 of run.sh. What is finished is left as it is, so the script
# may be interrupted, and called again with more systems or seeds.
#   ./run_systems.sh [--systems "ofa none mean2"] [--seeds "0 1 2"] [--tasks "ctc s2s"]
#       [--name NAME] [--ssl_args ARGS] [--asr_args ARGS] [--expdir DIR] [OPTION...]
# tasks: ctc; s2s, the joint model; adaptive, lambdas that the OFA model learns. NAME is in
# front of recognisers' folders and at the end of the report's; give one, without "_",
# where OPTIONs change the task. ARGS and OPTIONs are those of run.sh, such as --num_threads 1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" # the recipe, where a link to this file lies
# shellcheck source=/dev/null
. ./path.sh
# shellcheck source=/dev/null
. "${OFA_TEMPLATE}/stages/comparison.sh"

systems="ofa none mean2 mean3 mean4"
seeds="0 1 2"
tasks="ctc"
name="system"
ssl_args=""
asr_args=""
skip_stages=""
expdir=exp
take_options systems seeds tasks name ssl_args asr_args skip_stages expdir -- "$@"
for task in ${tasks}; do
    case ${task} in
        ctc | s2s | adaptive) ;;
        *) usage_error "--tasks are ctc, s2s and adaptive, not '${task}'" ;;
    esac
done
if [[ ${name} == *_* ]]; then # NAME_SYSTEM could be another's
    usage_error "--name has no _ in it; got '${name}'"
fi

has_task() {
    [[ " ${tasks} " == *" $1 "* ]]
}

train() { # SYSTEM SEED: ssl_system_SYSTEM_seedSEED and asr_NAME_SYSTEM_seedSEED in EXPDIR
    local system=$1 seed=$2 tag=${name}_$1_seed$2 options
    options=(--s2s_tag "${tag}_s2s" --skip_stages "${skip_stages}")
    if ! has_task s2s; then
        options=(--s2s_tag none --skip_stages "${skip_stages:+${skip_stages} }11"
            --s2s_adaptive_configs "")
    fi
    has_task adaptive || options+=(--adaptive_configs "" --s2s_adaptive_configs "")
    ./run.sh --stage 8 --stop_stage 13 --expdir "${expdir}" --system "${system}" \
        --ssl_tag "system_$(upstream_of "${system}")_seed${seed}" \
        --ssl_args "--seed ${seed}${ssl_args:+ ${ssl_args}}" \
        --asr_tag "${tag}" --asr_args "--seed ${seed}${asr_args:+ ${asr_args}}" \
        "${options[@]}" ${rest[@]+"${rest[@]}"}
}

for seed in ${seeds}; do
    for system in ${systems}; do
        train "${system}" "${seed}"
    done
done

report "${expdir}/report_${name}s" wer "asr_${name}" asr_train_asr_adaptive
report "${expdir}/report_${name}s_s2s" wer "asr_${name}" asr_train_asr_s2s_adaptive _s2s
