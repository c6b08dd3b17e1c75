# shellcheck shell=bash disable=SC2034,SC2154
# Sourced by settings.sh and cls_settings.sh: the systems that the OFA model is compared
# with, and ways to train it (docs/pretraining.md), each by what it changes in a recipe's
# own configurations. Sets ssl_system and asr_system, for names, puts options before those
# of --ssl_args and --asr_args, and says in adaptive_args what a learned lambda cannot have
# of the latter.

rate_options() { # what a rival without lambda has not
    printf ' --frontend_conf %s' lam=null lam_train=null guidance=0
}

one_lambda() { # LAMBDA: in training and after it
    printf ' --frontend_conf %s' "lam=$1" lam_train=null
}

upstream_options() { # KEY=VALUE...: VALUE in YAML, without blanks
    printf ' --upstream_conf %s' "$@"
}

case ${asr_args} in
    *lam_conf.alone=*) usage_error "lam_conf.alone is for configurations, which decide on" \
        "which set they learn: see conf/train_*_adaptive_valid.yaml" ;;
esac

choose_system() {
    local ssl='' asr='' lambdas=none # at which it runs: none, one or all
    ssl_system=${system}
    asr_system=${system}
    adaptive_args=''
    case ${system} in
        ofa)
            ssl_system=
            asr_system=
            return
            ;;
        none) # a unit is a frame: 20 ms
            ssl=$(upstream_options compressor=none compressor_conf={})
            ;;
        mean[2-5] | conv[2-5]) # average or strided convolution (Meng et al., 2022): 40 to 100 ms
            ssl=$(upstream_options "compressor=${system%?}" \
                "compressor_conf={\"factor\":${system: -1}}")
            ;;
        ofa_at_[0-9]*) # the OFA upstream, fine-tuned at one lambda (Chen et al., 2023)
            lambdas=one
            ssl_system=
            asr=$(one_lambda "${system#ofa_at_}")
            ;;
        cif) # one lambda, that of validation, in training too (Meng et al., 2022)
            lambdas=one
            ssl=" --lam_train null"
            asr=" --frontend_conf lam_train=null"
            ;;
        cif_at_[0-9]*) # the same at any lambda, pre-trained and fine-tuned at it
            lambdas=one
            ssl=" --lam ${system#cif_at_} --lam_train null"
            asr=$(one_lambda "${system#cif_at_}")
            ;;
        sew) # its positional convolution is the squeeze, of stride 2 (Wu et al., 2021): 40 ms
            ssl=$(upstream_options compressor=squeeze pos_kernel=0 upsampler=true \
                'compressor_conf={"factor":2,"kernel":31,"groups":16}')
            asr=" --frontend_conf upsample=true" # what follows sees 20 ms again
            ;;
        stochastic | squeeze) # S, q and k are drawn at each step (Vyas et al., 2022)
            ssl_system=stochastic
            ssl=$(upstream_options compressor=squeeze pos_kernel=0 upsampler=true \
                'compressor_conf={"factor":[1,2,3,4],"kernel":31,"groups":16}' \
                'query_pool=[1,2]' 'key_pool=[1,2]')
            ssl+=" --squeeze 2,1,1"
            asr=" --frontend_conf upsample=true --frontend_conf squeeze=2,1,1"
            if [ "${system}" = stochastic ]; then # squeeze: fine-tuned to this one
                asr+=" --frontend_conf squeeze_train=uniform"
                : "${inference_squeezes:=1,1,1 2,1,1 3,1,1 4,1,1}"
            fi
            ;;
        atome) # adjacent units merge in two layers, 29.3 % each time (Li et al., 2023): 40 ms
            ssl=$(upstream_options compressor=none compressor_conf={} \
                'merge={"layers":[0,1],"ratio":0.293}')
            ;;
        uniform | ends | ends_period | log_period | uniform_period) # lambda drawn otherwise
            lambdas=all
            ssl=" --lam_train ${system}"
            asr=" --frontend_conf lam_train=${system}"
            adaptive_args=" --frontend_conf lam_train=null"
            ;;
        condition_durations | condition_lam) # ours, the Transformer told of the rate
            lambdas=all
            ssl=$(upstream_options "condition=[${system#condition_}]")
            ;;
        sandwich) # ours, each step at lambda 0, at 1 and at a drawn one (Yu and Huang, 2019)
            lambdas=all
            ssl=" --model_conf sandwich=1.0 --lam_train uniform_period" # ends are there anyway
            asr=" --frontend_conf sandwich=10.0 --frontend_conf lam_train=uniform_period"
            adaptive_args=" --frontend_conf sandwich=0 --frontend_conf lam_train=null"
            ;;
        *) usage_error "--system is ofa, none, mean2 to mean5, conv2 to conv5, cif," \
            "cif_at_LAMBDA, sew, stochastic, squeeze or atome; or ours trained otherwise:" \
            "ofa_at_LAMBDA, uniform, ends, ends_period, log_period, uniform_period," \
            "condition_durations, condition_lam, sandwich; not '${system}'" ;;
    esac
    if [ "${lambdas}" = none ]; then
        asr="$(rate_options)${asr}"
    fi
    ssl_args="${ssl:+${ssl# } }${ssl_args}" # as without --system where nothing differs
    asr_args="${asr# } ${asr_args}"
    if [ "${lambdas}" = all ]; then
        return
    fi
    adaptive_configs="" s2s_adaptive_configs="" # there is no lambda to learn
    inference_lams=own
    s2s_inference_lams=own
}

choose_system
