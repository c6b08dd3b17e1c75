#!/usr/bin/env bash
# From a corpus and a pre-trained upstream to classifiers of whole utterances (keywords,
# speakers) at any frame period, on ESPnet's own classification task. Option names are
# those of ofa.sh, which pre-trains upstreams.
# shellcheck disable=SC2034 # the stages use the options
set -euo pipefail

## Which stages
stage=1               # first stage
stop_stage=7          # last stage
skip_stages=""        # stages to leave out, e.g. "5"
skip_data_prep=false  # leave out stages 1 to 3
skip_train=false      # leave out stages 4 and 5
skip_eval=false       # leave out stage 6
skip_packing=false    # leave out stage 7
overwrite=false       # a model whose configuration changed: remove it and train again

## Resources
ngpu=             # GPUs per node, 0: CPU. By default 1 where there is one
num_nodes=1       # nodes for training
nj=               # parallel jobs for data; by default all cores, at most 32
gpu_inference=false  # classify on a GPU
num_threads=      # CPU threads of training and inference; by default all cores without GPU

## Folders
data_dir=""           # where the corpus is; by default from db.sh, else downloaded
download_dir=downloads  # where downloads and cut audio go
datadir=data          # data directories
dumpdir=dump          # formatted audio
expdir=exp            # models and results
local_data_opts=""    # more options for local/data.sh
skip_bad=false        # leave damaged files of the corpus out instead of stopping

## Data
train_set=train        # training data
valid_set=valid        # validation data
test_sets="test"       # test data
audio_format=flac      # flac or wav
fs=16k                 # sampling rate; upstreams need 16k

## Models
system=ofa             # or another of stages/systems.sh, as which upstream was pre-trained
upstream=""            # pre-trained upstream: folder or hub id; or a .yaml: random weights
cls_config=conf/train_cls.yaml  # training configuration; lambda is drawn at each step
adaptive_configs="conf/train_cls_adaptive.yaml conf/train_cls_adaptive_price.yaml conf/train_cls_adaptive_valid.yaml"  # learning lambda;
                       # with lam_conf: {alone: true} on --valid_set, with weights as they are
fixed_lams=""          # also one model for each of these lambdas alone, e.g. "0 0.643 1"
cls_args=""            # more options for cls_train, e.g. "--max_epoch 3"
cls_tag=""             # suffix of the models' folders; by default from the configuration

## Results
inference_lams="0 0.43 0.64 0.77 0.86 0.92 0.96 1"  # lambdas; these are nominally 20, 30 ... 90 ms
inference_squeezes=""  # of a stochastic model: S,q,k, e.g. "1,1,1 2,1,2"
inference_args=""      # more options for cls_inference, e.g. "--batch_size 16"
inference_tag=classify # folder of results in the models'
inference_model=valid.acc.ave.pth  # checkpoint
readme=""              # write the results into this file as well

## Publishing
lang=en                # language of the speech, for the model card
hf_license=unknown     # of the weights, for the card, e.g. cc-by-4.0
hf_license_name=""     # with hf_license=other: what it is called
hf_datasets=""         # hub ids of the corpora, for the card, e.g. google/speech_commands
# End of options

cd "$(dirname "${BASH_SOURCE[0]}")" # the recipe, where a link to this file lies
# shellcheck source=/dev/null
. ./path.sh
# shellcheck source=/dev/null
. "${OFA_TEMPLATE}/utils/parse_options.sh"
# shellcheck source=/dev/null
. "${OFA_TEMPLATE}/stages/common.sh"
parse_options "${OFA_TEMPLATE}/cls.sh" "$@"
# shellcheck source=/dev/null
. ./cmd.sh
# Of data.sh stage 1 is used, of results.sh what finds finished models and packs them;
# the stages of cls.sh take the places of theirs.
for part in jobs data results cls_settings cls; do
    # shellcheck source=/dev/null
    . "${OFA_TEMPLATE}/stages/${part}.sh"
done

run_stages \
    "data preparation" \
    "audio format" \
    "classes and shapes" \
    "training" \
    "adaptive lambda and fixed lambdas" \
    "classification, scores and report" \
    "packing"
