# shellcheck shell=bash disable=SC2034
# Where corpora are. Empty: download. The environment and --data_dir override this.
AN4=${AN4:-}
MINI_LIBRISPEECH=${MINI_LIBRISPEECH:-} # holds train-clean-5 and dev-clean-2
LIBRISPEECH=${LIBRISPEECH:-}           # holds train-clean-100, dev-clean, ...
LIBRISPEECH_FINETUNING=${LIBRISPEECH_FINETUNING:-} # Libri-light's: holds 1h and 9h
SPEECH_COMMANDS=${SPEECH_COMMANDS:-}   # holds yes, no ..., or the published test set
