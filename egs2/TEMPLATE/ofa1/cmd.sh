# shellcheck shell=bash
# How jobs are started: Kaldi's interface, <cmd>.pl [options] [JOB=1:<nj>] <log> <command>.
# As in ESPnet: choose "local" or "slurm" (conf/slurm.conf maps --gpu, --mem and so on to
# options of sbatch), or set the three commands yourself, e.g. to Kaldi's queue.pl.
cmd_backend=${cmd_backend:-local}

case ${cmd_backend} in
    local)
        export train_cmd="run.pl"  # data and statistics
        export cuda_cmd="run.pl"   # training; "--gpu N" is added
        export decode_cmd="run.pl" # decoding
        ;;
    slurm)
        export train_cmd="slurm.pl"
        export cuda_cmd="slurm.pl"
        export decode_cmd="slurm.pl"
        ;;
    *)
        echo "cmd.sh: unknown cmd_backend=${cmd_backend}; choose local or slurm" >&2
        return 1
        ;;
esac
