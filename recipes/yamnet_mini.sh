#!/usr/bin/env bash
# Makes tfaudiotl/backbones/yamnet_mini.npz: recipes/yamnet_mini.sh DATA YAMNET OUT
# DATA has the folders esc10, speech_commands, librispeech and librispeech_train; YAMNET is TF Hub's SavedModel.
# ESC-10's folds 4 and 5 are left out, so that the shipped weights themselves can be measured on sound that they never
# heard. What the runs said, and the hashes, are in docs/yamnet_mini.md.
set -euo pipefail
data=$1 yamnet=$2 out=$3
export TF_NUM_INTEROP_THREADS=1

stage() { # name, seed, patches, learning rate, threads, further options
  local name=$1 seed=$2 patches=$3 rate=$4 threads=$5
  shift 5
  TF_NUM_INTRAOP_THREADS=$threads tfaudiotl distill \
    "$data/esc10" "$data/speech_commands" "$data/librispeech" "$data/librispeech_train" \
    --exclude 'esc10/[^/]+/[45]-' --teacher yamnet --weights "$yamnet" --layers layer8 \
    --patches "$patches" --epochs 4 --batch-size 16 --learning-rate "$rate" --seed "$seed" -o "$out/$name" "$@"
}

stage first 0 20000 2e-3 2
stage second 1 30000 1.5e-3 1 --student-weights "$out/first/student.npz"
