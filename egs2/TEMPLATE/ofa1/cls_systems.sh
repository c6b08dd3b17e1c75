#!/usr/bin/env bash
# The main comparison for a classification task: one once-for-all upstream against one for
# each frame period, as run_systems.sh of an ASR recipe has pre-trained them, each
# fine-tuned with the same data for the same number of steps. Systems are those of
# stages/systems.sh; ofa is fine-tuned at all lambdas and learns some of its own as well,
# ofa_at_LAMBDA at one. What is finished is left as it is.
#   ./run_systems.sh --ssl_expdir ../../an4/ofa1/exp [--systems "ofa none mean3"] [--seeds 0]
#       [--cls_args ARGS] [--expdir DIR] [OPTION...]
# ARGS and OPTIONs are those of run.sh, such as --data_dir.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" # the recipe, where a link to this file lies
# shellcheck source=/dev/null
. ./path.sh
# shellcheck source=/dev/null
. "${OFA_TEMPLATE}/stages/comparison.sh"

systems="ofa none mean2 mean3 mean4"
seeds="0"
ssl_expdir=""
cls_args=""
expdir=exp
take_options systems seeds ssl_expdir cls_args expdir -- "$@"
if [ -z "${ssl_expdir}" ]; then
    usage_error "--ssl_expdir is required: the exp folder that holds ssl_system_*_seed*"
fi

for seed in ${seeds}; do
    for system in ${systems}; do
        ./run.sh --stop_stage 6 --expdir "${expdir}" --system "${system}" \
            --upstream "${ssl_expdir}/ssl_system_$(upstream_of "${system}")_seed${seed}/upstream" \
            --cls_tag "system_${system}_seed${seed}" \
            --cls_args "--seed ${seed}${cls_args:+ ${cls_args}}" ${rest[@]+"${rest[@]}"}
    done
done

report "${expdir}/report_systems" accuracy cls_system cls_train_cls
