#!/usr/bin/env bash
# The main comparison for a classification task: one once-for-all upstream against one for
# each frame period, as run_systems.sh of an ASR recipe has pre-trained them, each
# fine-tuned with the same data for the same number of steps. ofa_at_LAMBDA is fine-tuned
# at one lambda; ofa at all of them, and it learns lambdas of its own as well. What is
# finished is left as it is.
#   ./run_systems.sh --ssl_expdir ../../an4/ofa1/exp [--systems "ofa none mean3"] [--seeds 0]
#       [--cls_args ARGS] [OPTION...]
# ARGS and OPTIONs are those of run.sh, such as --data_dir.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" # the recipe, where a link to this file lies
# shellcheck source=/dev/null
. ./path.sh
# shellcheck source=/dev/null
. "${OFA_TEMPLATE}/utils/parse_options.sh"

systems="ofa none mean2 mean3 mean4"
seeds="0"
ssl_expdir=""
cls_args=""
take_options systems seeds ssl_expdir cls_args -- "$@"
if [ -z "${ssl_expdir}" ]; then
    usage_error "--ssl_expdir is required: the exp folder that holds ssl_system_*_seed*"
fi

train() { # SYSTEM SEED
    local system=$1 seed=$2 upstream=$1 lam=null args options
    case ${system} in
        ofa_at_*) # the OFA upstream, fine-tuned at one lambda
            upstream=ofa
            lam=${system#ofa_at_}
            ;;
    esac
    args="--seed ${seed}${cls_args:+ ${cls_args}}"
    options=(--upstream "${ssl_expdir}/ssl_system_${upstream}_seed${seed}/upstream"
        --cls_tag "system_${system}_seed${seed}")
    if [ "${system}" != ofa ]; then # there is no lambda to draw, learn or choose
        options+=(--adaptive_configs "" --inference_lams own)
        args+=" --frontend_conf lam=${lam} --frontend_conf lam_train=null"
    fi
    ./run.sh ${rest[@]+"${rest[@]}"} "${options[@]}" --cls_args "${args}"
}

for seed in ${seeds}; do
    for system in ${systems}; do
        train "${system}" "${seed}"
    done
done

# All that is finished, of this call and of earlier ones.
decoded=()
for done in exp/cls_*system_*_seed*/*/.done; do
    dir=${done%/.done}
    name=${dir#exp/cls_}
    name=${name%/*}
    case ${name} in
        system_*) name=${name#system_} ;;
        *) # a learned lambda
            name=${name#train_cls_}
            name=${name%_system_*}_seed${name##*_seed}
            ;;
    esac
    decoded+=("${name/_seed/@}=${dir}")
done
python3 -m espnet_ofa.bin.report --metric accuracy --decode_dirs "${decoded[@]}" \
    --out exp/report_systems
