#!/bin/bash
# Train on the GPUs of several machines of a Slurm cluster, and go on by itself after an interruption:
#   sbatch recipes/accelerate/slurm.sh OUTPUT_DIR RECIPE [--key value ...]
#   sbatch --nodes=4 recipes/accelerate/slurm.sh /shared/runs/big wmt14-en-de/big --bf16 true
# srun starts one process for each GPU, without a launcher in between that would give them too little time to save: at SIGTERM
# a run ends after a checkpoint, with exit code 143, and is queued again. OUTPUT_DIR must be the same folder on all machines.
#SBATCH --job-name=theatre
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@300

set -u
if [ $# -lt 2 ]; then
    echo "usage: sbatch $0 OUTPUT_DIR RECIPE [--key value ...]" >&2
    exit 2
fi
output=$1
shift

# Where the job was queued again, what is in its folder is its own: go on, or begin anew where no checkpoint was written yet.
again=()
if compgen -G "$output/checkpoint-*" >/dev/null; then
    again=(--resume_from_checkpoint true)
elif [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then
    again=(--overwrite true)
fi

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((29500 + SLURM_JOB_ID % 1000))
export MASTER_ADDR MASTER_PORT OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# A batch script gets the signal too if the job is cancelled by name: it must live to queue the job again.
trap '' TERM
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" bash -c 'trap - TERM; RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS LOCAL_WORLD_SIZE=$SLURM_NTASKS_PER_NODE \
    exec python -m transformer_theatre.recipes.train "$@"' theatre "$@" --output_dir "$output" "${again[@]}"
code=$?

if [ $code -eq 143 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
