#!/bin/bash
# Everything that a CUDA machine can measure, in one command, under eight minutes, without a network.
#
#   benchmarks/gpu.sh [BUNDLE.onnx] [PYTHON]
#
# Wheels of what the machine lacks lie in benchmarks/wheels/ (git ignores it); ONNX Runtime's may be
# split to pass a size limit: onnxruntime_gpu-*.whl.part-aa, -ab, ...  joined here. Everything goes
# into benchmarks/.gpu-venv, which sees the machine's own packages (PyTorch with CUDA, if there).
# Results: benchmarks/results/gpu-*.json and $OUT, where that is set.
# Exit codes: 0 measured, 3 no GPU, 4 no ONNX Runtime with CUDA, 5 a part failed, 6 out of time.
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
bundle=$(realpath -e -- "${1:-$root/config/demo.onnx}") || exit 5
if [ -n "${OUT:-}" ]; then
  mkdir -p "$OUT" && OUT=$(realpath -e "$OUT") || exit 5
fi
python=${2:-python3}
limit_s=${GPU_LIMIT_S:-470}
SECONDS=0

if ! nvidia-smi -L > /dev/null 2>&1; then
  echo "gpu.sh: no NVIDIA GPU here (nvidia-smi finds none): nothing was measured" >&2
  exit 3
fi
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader

environment=$here/.gpu-venv
wheels=$here/wheels
if [ ! -x "$environment/bin/python" ]; then
  "$python" -m venv --system-site-packages "$environment" || exit 4
fi
for first in "$wheels"/*.whl.part-aa; do
  [ -e "$first" ] && cat "${first%aa}"* > "${first%.part-aa}"
done
if ls "$wheels"/*.whl > /dev/null 2>&1; then
  # A machine's own CPU-only ONNX Runtime is covered by the one in this environment.
  "$environment/bin/pip" install --quiet --no-index --no-deps --force-reinstall "$wheels"/*.whl || exit 4
fi
export PYTHONPATH=$root
run="$environment/bin/python"
if ! "$run" -c 'import sys, onnxruntime as ort
sys.exit("CUDAExecutionProvider" not in ort.get_available_providers())'; then
  echo "gpu.sh: no ONNX Runtime with CUDA: put the onnxruntime-gpu wheel into $wheels" >&2
  exit 4
fi

failed=0
wide=$(mktemp --suffix .onnx)
leave() {
  rm -f "$wide"
  [ -z "${OUT:-}" ] || cp -v "$here"/results/gpu* "$OUT"/
}
trap leave EXIT

# part NAME SECONDS COMMAND...: what takes longer is interrupted, and writes what it has.
part() {
  local name=$1 longest=$2 left=$((limit_s - SECONDS))
  shift 2
  [ "$left" -lt "$longest" ] || left=$longest
  if [ "$left" -lt 10 ]; then
    echo "gpu.sh: out of time before: $name" >&2
    exit 6
  fi
  echo "== $name (${SECONDS} s gone)"
  timeout -s INT -k 10 "$left" "$@" || { echo "gpu.sh: $name failed ($?)" >&2; failed=5; }
}

cd "$root" || exit 5
part "engines, precisions, CUDA graph, parity" 240 "$run" -m benchmarks.speed.gpu "$bundle"
part "trigger to verdict" 110 "$run" -m benchmarks.speed.end_to_end --provider cuda --bundle "$bundle" --parts 2000 --minutes 1 --name gpu-end_to_end
# The case that has a goal: WRN50-2 at 224 in fp16, trigger to verdict within 2.5 ms.
part "a bundle of WRN50-2" 60 "$run" -m benchmarks.speed.gpu "$bundle" --write "$wide"
if [ -s "$wide" ]; then
  part "trigger to verdict, WRN50-2" 110 "$run" -m benchmarks.speed.end_to_end --provider cuda --bundle "$wide" --cameras 1 --parts 2000 --minutes 1 --name gpu-end_to_end_wide
fi
echo "gpu.sh: done in ${SECONDS} s"
exit "$failed"
