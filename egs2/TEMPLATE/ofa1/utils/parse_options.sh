# shellcheck shell=bash
# Sourced. Command line options from a block of assignments that documents itself:
#
#   ## Group                    a heading of --help
#   nj=4  # parallel jobs       an option, its default, its help
#   # End of options
#
# parse_options FILE "$@"       FILE holds the block and has assigned it already
# take_options NAME... -- "$@"  assigns these, for a script that stands beside run.sh and
#                               hands all others on to it: rest. --help is its header

option_names() { # FILE
    sed -n '/^# End of options/q; s/^\([a-z][a-z0-9_]*\)=.*/\1/p' "$1"
}

print_options() { # FILE: with the values that the recipe gave before --help
    local line option
    sed -n -e '/^# End of options/q' \
        -e 's/^## \(.*\)/\n\1/p' \
        -e 's/^\([a-z][a-z0-9_]*\)=\("[^"]*"\|[^ ]*\) *# *\(.*\)/  --\1\n        \3/p' \
        -e 's/^ \{2,\}# *\(.*\)/        \1/p' "$1" | while IFS= read -r line; do
        option=${line#  --}
        [ "${option}" = "${line}" ] || line+=" (${!option})"
        echo "${line}"
    done
}

usage_error() {
    echo "${0##*/}: $* (see ${0##*/} --help)" >&2
    exit 2
}

parse_options() { # FILE ARGUMENT...
    local file=$1 name
    shift
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help)
                echo "Usage: ${0##*/} [--option value]..."
                print_options "${file}"
                exit 0
                ;;
            --*=*) usage_error "write --name value, not $1" ;;
            --*) ;;
            *) usage_error "$1 is not an option" ;;
        esac
        name=${1#--}
        name=${name//-/_}
        option_names "${file}" | grep -qx -- "${name}" || usage_error "unknown option $1"
        [ $# -gt 1 ] || usage_error "$1 needs a value"
        case ${!name} in
            true | false)
                [ "$2" = true ] || [ "$2" = false ] \
                    || usage_error "$1 is true or false, not '$2'"
                ;;
        esac
        printf -v "${name}" '%s' "$2"
        shift 2
    done
}

take_options() { # NAME... -- ARGUMENT...
    local names=" " option
    while [ "$1" != -- ]; do
        names+="$1 "
        shift
    done
    shift
    rest=()
    while [ $# -gt 0 ]; do
        option=${1#--}
        option=${option//-/_} # as in parse_options: else run.sh would take it for its own
        if [[ $1 == -h || $1 == --help ]]; then
            sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${0##*/}"
            echo "OPTIONs: ./run.sh --help"
            exit 0
        elif [[ $1 == --* && ${names} == *" ${option} "* ]]; then
            [ $# -gt 1 ] || usage_error "$1 needs a value"
            printf -v "${option}" '%s' "$2"
            shift
        else
            rest+=("$1")
        fi
        shift
    done
}
