#!/usr/bin/env bash
# One training run on a Cloud TPU slice, every host of it, by ssh.
#
#   TPU=my-slice ZONE=us-east5-a launch/templates/tpu_vm.sh setup
#   TPU=my-slice ZONE=us-east5-a launch/templates/tpu_vm.sh train \
#     configs/diffusion_tiny.py gs://my-bucket/runs/diffusion \
#     --config.data.paths="('gs://my-bucket/scenes',)" --config.data.batch_size=256
#   TPU=my-slice ZONE=us-east5-a launch/templates/tpu_vm.sh log
#
# Needs gcloud, signed in, and Python 3.11 on the hosts: runtime images of Ubuntu
# 22.04 have 3.10 as python3, so install another and set PYTHON=python3.11.
# REPOSITORY is what the hosts clone. The run goes on
# when this shell is gone; ssh is a way to start it, not to keep it alive. A
# slice that does not exist yet: v2a sweep plan --backend=tpu_vm. For slices that are
# often preempted, GKE restarts them by itself (--backend=gke).
set -euo pipefail

: "${TPU:?name of the slice}" "${ZONE:?zone of the slice}"
REPOSITORY=${REPOSITORY:-https://github.com/OWNER/v2a_jax}

everywhere() {
  gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
    --command "$1"
}

case "${1:-}" in
  setup)
    everywhere "set -e
      [ -d v2a_jax ] || git clone --depth 1 '$REPOSITORY' v2a_jax
      cd v2a_jax
      git pull --ff-only
      ${PYTHON:-python3} -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        { echo 'Python 3.11 or newer is needed: set PYTHON=python3.11'; exit 1; }
      [ -x .venv/bin/python ] || ${PYTHON:-python3} -m venv .venv
      .venv/bin/pip install -q -e '.[tpu,cloud]' -c constraints.txt
      .venv/bin/v2a doctor"
    ;;
  train)
    config=${2:?CONFIG}
    workdir=${3:?WORKDIR, on storage that every host sees}
    shift 3
    arguments=$(printf '%q ' --config="$config" --workdir="$workdir" "$@")
    everywhere "cd v2a_jax
      nohup .venv/bin/python -m launch.train --distributed $arguments \
        >> train.log 2>&1 < /dev/null & echo \$! > train.pid"
    ;;
  log)
    gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=0 \
      --command "tail -f v2a_jax/train.log"
    ;;
  stop)
    # SIGTERM, on every host: a last checkpoint, then the end.
    everywhere 'kill -TERM "$(cat v2a_jax/train.pid)"'
    ;;
  *)
    echo "usage: TPU=NAME ZONE=ZONE $0 setup|train|log|stop" >&2
    exit 2
    ;;
esac
