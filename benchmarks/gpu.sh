#!/usr/bin/env bash
# What issue 4 asks of a GPU, in one call of under 10 minutes, with no network:
#
#     bash benchmarks/gpu.sh
#
# Needs torch >= 2.11 with Triton. Where ssmdiff is not installed, its few pure dependencies are
# taken from ./.gpu-deps, made beforehand for the machine's Python (docs/gpu.md has the line).
# mamba-ssm is compared with where it can be imported, or built from ./.mamba-src (5 minutes at
# most, beside the checks of correctness). Results: benchmarks/results/gpu.json and a table.
# Exit codes: 0 all parts ran, 1 a part failed (the others stand in the results), 3 no GPU here.
set -u
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
RESULTS=${RESULTS:-benchmarks/results/gpu.json}
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

# Beside the checks of correctness, so that both together take no longer than the build.
build_mamba() {
  cp -r .mamba-src "$WORK/mamba"
  # Its setup.py builds for every card since 2018, whatever TORCH_CUDA_ARCH_LIST says: this one alone.
  "$PYTHON" - "$WORK/mamba/setup.py" <<'END'
import pathlib, re, sys
setup = pathlib.Path(sys.argv[1])
text = re.sub(r'cc_flag\.append\("(-gencode|arch=[^"]*)"\)', "pass", setup.read_text())
setup.write_text(text.replace('os.environ["TORCH_CUDA_ARCH_LIST"] = ""', "pass"))
END
  TORCH_CUDA_ARCH_LIST=$("$PYTHON" -c \
    'import torch; print("%d.%d" % torch.cuda.get_device_capability())') \
    MAMBA_FORCE_BUILD=TRUE MAMBA_KEEP_CUDA_BUILD=TRUE timeout 300 "$PYTHON" -m pip install \
    --quiet --no-build-isolation --no-deps --target "$WORK/built" "$WORK/mamba" \
    || echo "mamba-ssm was not built within 5 minutes; it is left out"
}

if ! "$PYTHON" -c 'import torch, selective_scan_cuda' 2>/dev/null && [ -d .mamba-src ]; then
  build_mamba &
fi
status=0
timeout 280 "$PYTHON" benchmarks/gpu.py --only correctness --json "$RESULTS" || status=1
wait
if [ -d "$WORK/built" ]; then
  export PYTHONPATH="$WORK/built${PYTHONPATH:+:$PYTHONPATH}"
fi
timeout 240 "$PYTHON" benchmarks/gpu.py --only speed,network,tests --json "$RESULTS" || status=1
"$PYTHON" benchmarks/gpu.py --only table --json "$RESULTS"
exit "$status"
