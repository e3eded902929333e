#!/usr/bin/env bash
# What can be shown on a GPU alone, in one call of under 10 minutes, with no network:
#
#     bash benchmarks/gpu.sh
#
# Needs torch >= 2.11 with Triton. Where ssmdiff is not installed, its few pure dependencies are
# taken from ./.gpu-deps, made beforehand for the machine's Python (docs/gpu.md has the line).
# mamba-ssm is compared with where it can be imported, or else built from ./.mamba-src, with
# nothing beside it. Results: benchmarks/results/gpu.json and a table; what the build said lies
# beside it in gpu.mamba-build.log.
# Exit codes: 0 all parts ran, 1 a part failed (the others stand in the results), 3 no GPU here.
set -u
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
RESULTS=${RESULTS:-benchmarks/results/gpu.json}
BUILD_LIMIT=${BUILD_LIMIT:-270} # seconds
BUILD_LOG=${RESULTS%.json}.mamba-build.log
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

# As if installed: the packages, and the entry points by which plugins are found.
if ! "$PYTHON" -c 'import ssmdiff' 2>/dev/null; then
  "$PYTHON" - "$WORK" <<'END'
import pathlib, sys, tomllib
project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]
info = pathlib.Path(sys.argv[1], "ssmdiff-0.0.dist-info")
info.mkdir()
(info / "METADATA").write_text("Metadata-Version: 2.1\nName: ssmdiff\nVersion: 0.0\n")
points = project["entry-points"]["ssmdiff"].items()
(info / "entry_points.txt").write_text("[ssmdiff]\n" + "".join(f"{k} = {v}\n" for k, v in points))
END
  export PYTHONPATH="core:plugins:cli:export:$WORK:.gpu-deps${PYTHONPATH:+:$PYTHONPATH}"
fi

"$PYTHON" benchmarks/gpu.py --only check || exit 3
rm -f "$RESULTS"

# A copy of its source is changed: its setup.py builds for every card since 2018, whatever
# TORCH_CUDA_ARCH_LIST says, four architectures at a time; this card's alone takes a ninth. Line
# numbers and register counts are left out, and torch 2.14's headers need C++20.
build_mamba() {
  cp -r .mamba-src/. "$WORK/mamba"
  "$PYTHON" - "$WORK/mamba/setup.py" <<'END'
import pathlib, re, sys
setup = pathlib.Path(sys.argv[1])
text = re.sub(r'cc_flag\.append\("(-gencode|arch=[^"]*)"\)', "pass", setup.read_text())
text = text.replace('os.environ["TORCH_CUDA_ARCH_LIST"] = ""', "pass")
text = text.replace('["--threads", "4"]', "[]").replace('"-std=c++17"', '"-std=c++20"')
text = re.sub(r'"(--ptxas-options=-v|-lineinfo)",\n', "\n", text)
setup.write_text(text)
END
  TORCH_CUDA_ARCH_LIST=$("$PYTHON" -c \
    'import torch; print("%d.%d" % torch.cuda.get_device_capability())') \
    MAX_JOBS=$(nproc) MAMBA_FORCE_BUILD=TRUE timeout "$BUILD_LIMIT" "$PYTHON" -m pip install \
    --verbose --no-build-isolation --no-deps --target "$WORK/built" "$WORK/mamba" >"$BUILD_LOG" 2>&1
}

if ! "$PYTHON" -c 'import torch, selective_scan_cuda' 2>/dev/null && [ -d .mamba-src ]; then
  SECONDS=0
  if build_mamba; then
    echo "mamba-ssm was built in $SECONDS s"
    export MAMBA_BUILD_S=$SECONDS PYTHONPATH="$WORK/built${PYTHONPATH:+:$PYTHONPATH}"
  else
    echo "mamba-ssm was not built in $SECONDS s (limit $BUILD_LIMIT) and is left out; $BUILD_LOG ends:"
    tail -n 5 "$BUILD_LOG"
  fi
fi
status=0
timeout 240 "$PYTHON" benchmarks/gpu.py --only correctness --json "$RESULTS" || status=1
timeout 240 "$PYTHON" benchmarks/gpu.py --only speed,network,tests --json "$RESULTS" || status=1
"$PYTHON" benchmarks/gpu.py --only table --json "$RESULTS"
exit "$status"
