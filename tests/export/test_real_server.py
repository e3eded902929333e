"""NVIDIA's own server over a repository of ours: config, warm-up, and the images of the client.

The server comes with the package nvidia-pytriton, without its backend for ONNX Runtime; one of
that name in Python stands in for it, so that ``config.pbtxt`` is read as it is. Night tier: the
package is fetched, and unpacked outside of the environment, since it asks for numpy 1.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import ssmdiff
from ssmdiff.errors import ExportError
from ssmdiff_export.runtime.served import ServedModel
from tiny_runs import tiny_run

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
BACKEND = """
import os
import sys

sys.path[:0] = [os.environ["SSMDIFF_SITE"]]
import onnxruntime
import triton_python_backend_utils as server


class TritonPythonModel:
    def initialize(self, args):
        file = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        self.names = [value.name for value in self.session.get_inputs()]

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        inputs = {n: server.get_input_tensor_by_name(request, n).as_numpy() for n in self.names}
        print("batch", len(inputs["x"]), flush=True)
        (found,) = self.session.run(["prediction"], inputs)
        return server.InferenceResponse([server.Tensor("prediction", found)])
"""


def pip(*words: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", *map(str, words)], capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        pytest.skip(f"no package index here: {done.stderr.strip().splitlines()[-1]}")


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> tuple[Path, Path, Path]:
    """Its files, its backends, and the packages of its Python."""
    place = tmp_path_factory.mktemp("server")
    pip("download", "--quiet", "--no-deps", "--dest", place, "nvidia-pytriton==0.7.0")
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    root = place / "pytriton" / "tritonserver"
    stub = root / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"
    if not stub.is_file() or not sysconfig.get_config_var("Py_ENABLE_SHARED"):
        pytest.skip(f"the server has no Python {PYTHON}, or this one is no shared library")
    for program in (root / "bin" / "tritonserver", stub):
        program.chmod(0o755)
    (root / "backends" / "python" / stub.name).symlink_to(stub)
    (root / "backends" / "onnxruntime").mkdir()
    (root / "backends" / "onnxruntime" / "model.py").write_text(BACKEND)
    site = place / "site"
    pip("install", "--quiet", "--target", site, "numpy<2", "onnxruntime")
    return place, root, site


@contextmanager
def serving(server: tuple[Path, Path, Path], repository: Path) -> Iterator[tuple[str, Path]]:
    """The server's address, and its log."""
    place, root, site = server
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = repository.parent / "server.log"
    libraries = [sysconfig.get_config_var("LIBDIR"), str(place / "nvidia_pytriton.libs")]
    environment = {
        **os.environ, "LD_LIBRARY_PATH": ":".join(libraries), "PYTHONHOME": sys.base_prefix,
        "SSMDIFF_SITE": str(site),
    }  # fmt: skip
    with log.open("w") as out:
        process = subprocess.Popen(
            [root / "bin" / "tritonserver", f"--model-repository={repository}",
             f"--backend-directory={root / 'backends'}", f"--http-port={port}",
             "--http-address=127.0.0.1", "--allow-grpc=false", "--allow-metrics=false",
             "--disable-auto-complete-config"],
            env=environment, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            assert process.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(f"{url}/v2/health/ready", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.25)
        yield url, log
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.night
@pytest.mark.parametrize("kind", ["fixed", "random"])
def test_nvidias_server_reads_the_repository_and_serves_the_client(server, kind, tmp_path) -> None:
    scan = {"name": "raster"} if kind == "fixed" else {"name": "regenerate", "base": "atrous"}
    run = tiny_run(tmp_path / "run", scan=scan, classes=("a", "b"))
    repository = tmp_path / "repository"
    ssmdiff.job("export")(run, repository, "triton-server", verify=False, batch=[1, 2, 4])
    with serving(server, repository) as (url, log):
        lines = log.read_text().splitlines()
        warmed = sum(int(line.split()[1]) for line in lines if line.startswith("batch "))
        assert warmed == 1 + 2, "before the first request"
        client = ServedModel(repository / "card.json", url)
        drawn = client.sample(5, seed=3, steps=4, batch_size=4)
        if kind == "fixed":
            with pytest.raises(ExportError, match=r"refuses \(400\): .*batch-size must be <= 4"):
                client.sample(5, seed=3, steps=4, batch_size=5)
    wanted = run.sample(5, seed=3, steps=4).numpy()
    assert np.ptp(wanted) > 0.5
    np.testing.assert_allclose(drawn, wanted, rtol=0, atol=1e-4)
