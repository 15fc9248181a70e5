#!/bin/bash
#SBATCH --job-name=@NAME@
#SBATCH --nodes=@NODES@
#SBATCH --ntasks-per-node=@TASKS@
#SBATCH --cpus-per-task=@CPUS@
#SBATCH --time=@TIME@
#SBATCH --requeue
#SBATCH --open-mode=append
# SIGTERM this many seconds before the time limit, to save a checkpoint.
#SBATCH --signal=TERM@@GRACE@
#SBATCH --output=@LOG@
@OPTION_LINES@
set -euo pipefail
cd @DIRECTORY@
@ENVIRONMENT_LINES@
code=0
srun --kill-on-bad-exit=1 @COMMAND@ --distributed.cluster slurm || code=$?

# 143: stopped by SIGTERM after saving. 75, 134, 137: a process or its node was lost. These jobs are
# requeued and resume from the last checkpoint, on the same or other nodes; a usage error (2) is not.
case "$code" in
  75 | 134 | 137 | 143)
    if [ "${SLURM_RESTART_COUNT:-0}" -lt @RESTARTS@ ]; then
      scontrol requeue "$SLURM_JOB_ID"
      exit 0
    fi
    ;;
esac
exit "$code"
