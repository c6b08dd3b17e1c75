# shellcheck shell=bash disable=SC2154
# Sourced by settings.sh and cls_settings.sh: checks of options, before any work. A STAGE
# is one of those that use the option; where none of them will run, anything passes.

check_given() { # OPTION...
    local name
    for name in "$@"; do
        [ -n "${!name}" ] || usage_error "--${name} is required"
    done
}

check_numbers() { # OPTION...
    local name
    for name in "$@"; do
        case ${name}=${!name} in
            ngpu= | nj= | num_threads=) ;; # found by resources.sh
            *= | *=*[!0-9]*) usage_error "--${name} is a number, not '${!name}'" ;;
            *) printf -v "${name}" %d "$((10#${!name}))" ;; # 08 is 8, not octal
        esac
    done
}

check_choice() { # OPTION VALUE...
    local name=$1 choices
    shift
    choices="$*"
    if [ -z "${!name}" ] || [[ " ${choices} " != *" ${!name} "* ]]; then
        usage_error "--${name} is one of ${choices// /, }; not '${!name}'"
    fi
}

check_words() { # OPTION PATTERN WHAT: each matches
    local word
    for word in ${!1}; do
        [[ ${word} =~ ^($2)$ ]] \
            || usage_error "--$1 is $3, with spaces between them; not '${!1}'"
    done
}

check_lams() { # OPTION [WORD|WORD]: numbers, or one of these words
    check_words "$1" "[01]?\.[0-9]+|[01]\.?|2(\.0*)?${2:+|$2}" \
        "lambdas from 0 to 2 as decimal numbers${2:+, or ${2//|/ or }}"
}

check_squeezes() { # OPTION
    check_words "$1" "[1-9][0-9]*(,[1-9][0-9]*){0,2}|own" "S,q,k of each squeeze"
}

check_stages() { # the numbers that say which stages run
    local number numbers=
    check_numbers stage stop_stage
    check_words skip_stages "[0-9]+" "numbers of stages"
    for number in ${skip_stages}; do
        numbers+="${numbers:+ }$((10#${number}))"
    done
    skip_stages=${numbers}
}

skip() { # OPTION STAGE...: leave these out where the option is true
    if [ "$1" = true ]; then
        shift
        skip_stages="${skip_stages} $*"
    fi
}

check_config() { # OPTION STAGE...
    local name=$1
    shift
    if will_run "$@" && [ ! -f "${!name}" ]; then
        usage_error "--${name}: ${!name}: no such configuration"
    fi
}

check_configs() { # OPTION STAGE...: several, with spaces between them
    local name=$1 file
    shift
    will_run "$@" || return 0
    for file in ${!name}; do
        [ -f "${file}" ] || usage_error "--${name}: ${file}: no such configuration"
    done
}

check_upstream_name() { # OPTION STAGE...: a file, a folder or, by its form, a hub id
    local name=$1 id='[[:alnum:]_-][[:alnum:]_.-]*'
    shift
    will_run "$@" || return 0
    if [ -n "${!name}" ] && [ ! -e "${!name}" ] && [[ ! ${!name} =~ ^${id}/${id}(@.+)?$ ]]; then
        usage_error "--${name}: ${!name}: no such file or folder, and not a hub id (USER/NAME)"
    fi
}

check_own_upstream() { # OPTION STAGE...: the same, of ours
    check_upstream_name "$@"
    if will_run "${@:2}" && [ -d "${!1}" ] && [ ! -f "${!1}/config.yaml" ]; then
        usage_error "--$1: ${!1} holds no config.yaml; expected the folder of an upstream," \
            "such as stage 8 of ofa.sh writes"
    fi
}
