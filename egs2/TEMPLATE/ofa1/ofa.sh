#!/usr/bin/env bash
# From a corpus to an upstream that runs at any frame period, and to recognisers on top
# of it. Options are those of ESPnet's asr.sh where it has them.
# shellcheck disable=SC2034 # the stages use the options
set -euo pipefail

## Which stages
stage=1               # first stage
stop_stage=15         # last stage
skip_stages=""        # stages to leave out, e.g. "11 12"
skip_data_prep=false  # leave out stages 1 to 5
skip_train=false      # leave out stages 6 to 12
skip_eval=false       # leave out stage 13
skip_packing=false    # leave out stage 14
skip_upload_hf=true   # leave out stage 15
overwrite=false       # a model whose configuration changed: remove it and train again

## Resources
ngpu=             # GPUs per node, 0: CPU. By default 1 where there is one
num_nodes=1       # nodes for training
nj=               # parallel jobs for data; by default all cores, at most 32
inference_nj=1    # parallel jobs for decoding; 1 decodes everything in one process
gpu_inference=false  # decode on a GPU
num_threads=      # CPU threads of training and decoding; by default all cores without GPU

## Folders
data_dir=""           # where the corpus is; by default from db.sh, else downloaded
download_dir=downloads  # where downloads and synthesised audio go
datadir=data          # data directories
dumpdir=dump          # formatted audio
expdir=exp            # models and results
local_data_opts=""    # more options for local/data.sh
skip_bad=false        # leave damaged files of the corpus out instead of stopping

## Data
lang=en                # language, for names only
train_set=""           # training data (required)
valid_set=""           # validation data (required)
test_sets=""           # test data (required)
speed_perturb_factors=""  # e.g. "0.9 1.0 1.1"; empty: no perturbation
audio_format=flac      # flac or wav
fs=16k                 # sampling rate; upstreams need 16k
min_wav_duration=0.1   # drop shorter training utterances, seconds
max_wav_duration=20    # drop longer training utterances, seconds

## Tokens
token_type=bpe         # bpe, char or phn
nbpe=300               # BPE units
bpemode=unigram        # unigram or bpe
bpe_train_text=""      # text that tokens come from; by default the training text
bpe_nlsyms=""          # symbols BPE must keep whole, comma separated
nlsyms_txt=none        # file of non-linguistic symbols
cleaner=none           # ESPnet's text cleaner
g2p=none               # what makes the phones of phn: none (the corpus has them), espeak, a
                       # lexicon (file: word phone phone ...) or one of ESPnet's g2p

## Pre-training
system=ofa             # or a rival of stages/systems.sh: none, mean2 ... stochastic, atome
pretrained_upstream="" # an upstream that exists (folder or hub id): leaves out stages 6 to 8
ssl_train_set=""       # data sets to pre-train on; by default the training data
ssl_extra_dirs=""      # more audio for pre-training only: folders in LibriSpeech's layout
ssl_config=conf/train_ssl.yaml  # training configuration
ssl_args=""            # more options for ssl_train, e.g. "--max_epoch 10"
ssl_tag=""             # suffix of the model's folder; by default from the configuration
ssl_exp=""             # the model's folder itself
ssl_stats_dir=""       # folder of shapes
ssl_targets_dir=""     # folder of targets
ssl_num_codes=100      # k-means codes
ssl_segments=codes     # guidance: codes, detect (changes of the spectrum), data (the corpus' own
                       # boundaries), none, or a file or folder of alignments
ssl_targets_args=""    # more options for ssl_targets, e.g. "--upstream DIR --layer 6"
ssl_teacher=""         # of distillation (ssl_config with model: distill): folder, file or hub id
ssl_teacher_cache=false  # compute its hidden states once, in stage 6, not in every epoch
ssl_teacher_args=""    # more options for ssl_teacher, e.g. "--layers 6 12"
ssl_teacher_dir=""     # folder of that cache
ssl_model=""           # checkpoint that becomes the upstream; by default that of the least
                       # loss: valid.loss_masked.ave.pth, with a teacher valid.loss_distill.ave.pth

## Recognition
asr_config=conf/train_asr_ctc.yaml  # CTC fine-tuning
s2s_config=conf/train_asr_s2s.yaml  # joint CTC/attention fine-tuning
adaptive_configs="conf/train_asr_adaptive.yaml conf/train_asr_adaptive_price.yaml conf/train_asr_adaptive_valid.yaml"  # learning lambda;
                       # with lam_conf: {alone: true} on --valid_set, with weights as they are
s2s_adaptive_configs=""  # the same, starting from the joint model
asr_args=""            # more options for asr_train, stages 9 to 12
asr_tag=""             # suffix of the CTC model's folder; by default from the configuration.
                       # Adaptive models start from it and get the tag as well
s2s_tag=""             # the same for the joint model
asr_exp=""             # the CTC model's folder itself
s2s_exp=""             # the joint model's folder itself
asr_stats_dir=""       # folder of shapes
asr_speech_fold_length=80000  # for batch_type folded
asr_text_fold_length=150      # for batch_type folded
s2s_from_ctc=false     # start the joint model from the CTC model, not from the upstream

## Decoding
inference_config=conf/decode_ctc.yaml      # of CTC models
s2s_inference_config=conf/decode_s2s.yaml  # of joint models
inference_args=""      # more options for asr_inference
inference_tag=""       # folder of results in the model's; by default from the configuration
inference_lams="0 0.43 0.64 0.77 0.86 0.92 0.96 1"  # lambdas; these are nominally 20, 30 ... 90 ms
s2s_inference_lams=""  # those of joint models; by default the same
inference_squeezes=""  # of a stochastic model, e.g. "1,1,1 2,1,1 4,1,2"; each with each lambda
inference_asr_model=valid.cer_ctc.ave.pth  # checkpoint of CTC models
inference_s2s_model=valid.acc.ave.pth   # checkpoint of joint models
readme=""              # write the results into this file as well

## Publishing
pack_system=ctc        # what stage 15 uploads: ctc, s2s, ssl or the name of an adaptive model
pack_onnx=auto         # model.onnx in the package of ssl: true, false or, if it can be made, auto
hf_repo=""             # Hugging Face repository, USER/NAME
hf_license=unknown     # of the weights, for the model card, e.g. cc-by-4.0
hf_license_name=""     # with hf_license=other: what it is called
hf_datasets=""         # hub ids of the corpora, for the card, e.g. openslr/librispeech_asr
hf_args=""             # more options of upload, e.g. "--private" or "--dry_run"
# End of options

cd "$(dirname "${BASH_SOURCE[0]}")" # the recipe, where a link to this file lies
# shellcheck source=/dev/null
. ./path.sh
# shellcheck source=/dev/null
. "${OFA_TEMPLATE}/utils/parse_options.sh"
# shellcheck source=/dev/null
. "${OFA_TEMPLATE}/stages/common.sh"
parse_options "${OFA_TEMPLATE}/ofa.sh" "$@"
# shellcheck source=/dev/null
. ./cmd.sh
for part in jobs settings data ssl asr results; do
    # shellcheck source=/dev/null
    . "${OFA_TEMPLATE}/stages/${part}.sh"
done

run_stages \
    "data preparation" \
    "speed perturbation" \
    "audio format" \
    "short and long utterances" \
    "token list" \
    "SSL targets and segments" \
    "SSL statistics" \
    "SSL pre-training" \
    "ASR statistics" \
    "CTC fine-tuning" \
    "joint CTC/attention fine-tuning" \
    "adaptive lambda" \
    "decoding, scores and report" \
    "packing" \
    "publishing"
