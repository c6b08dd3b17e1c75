#!/usr/bin/env bash
# Does a classifier's learned lambda depend on where it started? From three starts, with
# a price on units and without one; the report shows where each went, and the frame
# periods that were measured. Needs stages 1 to 4 of run.sh. What is finished is left as it
# is, so the script may be interrupted and called again.
#   ./run_starts.sh --upstream DIR [--cls_tag TAG] [--starts "0.2 0.643 0.95"] [OPTION...]
# TAG is that of the model to start from; OPTIONs are those of run.sh, such as --data_dir.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" # the recipe, where a link to this file lies
# shellcheck source=/dev/null
. ./path.sh
# shellcheck source=/dev/null
. "${OFA_TEMPLATE}/utils/parse_options.sh"

starts="0.2 0.643 0.95"
cls_tag=train_cls_raw
take_options starts cls_tag -- "$@"
first=exp/cls_${cls_tag}/valid.acc.ave.pth
if [ ! -e "${first}" ]; then
    echo "$0: ${first} is missing; run ./run.sh --stage 1 --stop_stage 4 first" >&2
    exit 1
fi

found=()
for config in adaptive_price adaptive; do
    for start in ${starts}; do
        tag=starts_${config}_${start}
        ./run.sh --stop_stage 6 --skip_stages 5 \
            --cls_config "conf/train_cls_${config}.yaml" --cls_tag "${tag}" \
            --cls_args "--init_param ${first} --frontend_conf lam_conf.init=${start}" \
            --adaptive_configs "" --inference_lams own ${rest[@]+"${rest[@]}"}
        found+=("${config}@${start}=exp/cls_${tag}/classify")
    done
done
python3 -m espnet_ofa.bin.report --metric accuracy --decode_dirs "${found[@]}" \
    --out exp/report_starts
