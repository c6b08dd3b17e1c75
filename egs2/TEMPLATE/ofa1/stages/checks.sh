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

check_stages() { # the numbers that say which stages run
    local number numbers=
    check_numbers stage stop_stage
    for number in ${skip_stages}; do
        case ${number} in
            *[!0-9]*) usage_error "--skip_stages is numbers between spaces, like" \
                "\"10 11\", not '${skip_stages}'" ;;
        esac
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
