#!/bin/bash
#SBATCH --job-name=@NAME@
#SBATCH --nodes=@NODES@
#SBATCH --ntasks-per-node=@TASKS@
@GPU_LINES@
#SBATCH --cpus-per-task=@CPUS@
#SBATCH --time=@TIME@
#SBATCH --requeue
#SBATCH --open-mode=append
# The steps are told to save so many seconds before the time is over.
#SBATCH --signal=TERM@@GRACE@
#SBATCH --output=@LOG@
@PARTITION_LINES@
set -euo pipefail
cd @DIRECTORY@
@ENVIRONMENT_LINES@
code=0
srun --kill-on-bad-exit=1 @COMMAND@ --distributed.cluster slurm || code=$?

# 143: told to stop, and saved. 75, 134, 137: a process or its node was lost. All go on from the
# last checkpoint, on the same or on other nodes; a user's mistake (2) does not come back.
case "$code" in
  75 | 134 | 137 | 143)
    if [ "${SLURM_RESTART_COUNT:-0}" -lt @RESTARTS@ ]; then
      scontrol requeue "$SLURM_JOB_ID"
      exit 0
    fi
    ;;
esac
exit "$code"
