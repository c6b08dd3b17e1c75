#!/usr/bin/env bash
# Does a classifier's learned lambda depend on where it started? From three starts, with
# a price on units, without one, and lambda alone on the validation set; the report shows
# where each went, and the frame periods that were measured. Needs stages 1 to 4 of
# run.sh. What is finished is left as it is, so the script may be interrupted and called
# again. report/ is written again by stage 6 of run.sh.
#   ./run_starts.sh --upstream DIR [--cls_tag TAG] [--starts "0.2 0.643 0.95"]
#       [--configs "adaptive adaptive_valid"] [--cls_args ARGS] [--expdir DIR]
#       [OPTION...]
# TAG is that of the model to start from; configs: conf/train_cls_NAME.yaml;
# OPTIONs are those of run.sh for data and resources, such as --data_dir.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" # the recipe, where a link to this file lies
# shellcheck source=/dev/null
. ./path.sh
# shellcheck source=/dev/null
. "${OFA_TEMPLATE}/utils/parse_options.sh"

starts="0.2 0.643 0.95"
configs="adaptive_price adaptive adaptive_valid"
cls_tag=train_cls_raw
cls_args=""
expdir=exp
take_options starts configs cls_tag cls_args expdir -- "$@"
first=${expdir}/cls_${cls_tag}/valid.acc.ave.pth
if [ ! -e "${first}" ]; then
    echo "$0: ${first} is missing: train it (stages 1 to 4 of run.sh), or give --cls_tag" >&2
    exit 1
fi

found=()
for config in ${configs}; do
    for start in ${starts}; do
        tag=start${start}_${config}_${cls_tag}
        ./run.sh --stop_stage 6 --skip_stages 5 --expdir "${expdir}" ${rest[@]+"${rest[@]}"} \
            --cls_config "conf/train_cls_${config}.yaml" --cls_tag "${tag}" \
            --cls_args "--init_param ${first} --frontend_conf lam_conf.init=${start} ${cls_args}" \
            --adaptive_configs "" --inference_lams own
        found+=("${config}@${start}=${expdir}/cls_${tag}/classify")
    done
done
python3 -m espnet_ofa.bin.report --metric accuracy --decode_dirs "${found[@]}" \
    --out "${expdir}/report_starts_${cls_tag}"
