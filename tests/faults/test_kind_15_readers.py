"""Kind 15, row N7: what a reader meets is one sentence, and the last finished step is kept."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import ssmdiff
from PIL import Image
from ssmdiff import RunFolder, hookimpl
from ssmdiff.errors import DataError, PluginBrokenError, SsmdiffError
from ssmdiff_data.phantom import PhantomDataset
from ssmdiff_train import stream
from ssmdiff_train.callbacks import read_metrics
from ssmdiff_train.job import train

WORKERS = pytest.mark.parametrize("workers", [0, 2])
SMALL = {
    "data": {"image_size": 16, "dataset": {"name": "phantom", "length": 12}},
    "model": {"block": "conv", "backbone": {"name": "vmddpm", "channels": 8, "widths": [1]}},
    "train": {
        "steps": 30, "batch_size": 2, "bound_images": 0, "sample_every": 0, "callbacks": [],
        "checkpoint_every": 1000,
    },
    "sample": {"count": 1, "steps": 1},
}  # fmt: skip


def run(tmp_path, workers, **data):
    layers = ssmdiff.merge(SMALL, {"data": {"workers": workers, **data}})
    return train(layers, tmp_path / "run")


def saved_is_last(tmp_path):
    """The checkpoint is of the last step that the metrics have."""
    folder = RunFolder(tmp_path / "run")
    steps = [row["step"] for row in read_metrics(folder.path / "metrics.jsonl") if "loss" in row]
    assert folder.checkpoint().step == steps[-1] == len(steps) > 0
    return len(steps)


def one_sentence(error):
    text = str(error.value)
    assert "\n" not in text
    assert "Traceback" not in text
    return text


@WORKERS
def test_a_damaged_file_met_in_training(tmp_path, workers):
    images = tmp_path / "images"
    images.mkdir()
    for i in range(9):
        noise = np.random.default_rng(i).integers(0, 255, (40, 40), np.uint8)
        Image.fromarray(noise).save(images / f"{i}.png")
    whole = (images / "7.png").read_bytes()
    (images / "7.png").write_bytes(whole[: len(whole) // 2])
    with (
        pytest.warns(UserWarning, match="Training stops where it meets it"),
        pytest.raises(DataError) as refused,
    ):
        run(tmp_path, workers, dataset={"name": "folder", "path": str(images)})
    assert refused.value.exit_code == 4
    text = one_sentence(refused)
    step = saved_is_last(tmp_path)
    assert text.startswith(f"step {step + 1}: image 7 of 9 (number ")
    assert f"{images}/7.png: it is cut short or damaged" in text
    assert f"step {step} is saved, go on with: ssmdiff train --out {tmp_path}/run --resume" in text
    assert "--allow-config-change data.fingerprint, once the images are mended" in text
    (images / "7.png").write_bytes(whole)
    layers = {"train": {"steps": step + 3}, "data": {"workers": workers}}
    mended = train(layers, tmp_path / "run", resume=True, allow_changes=["data.fingerprint"])
    assert mended.checkpoint().step == step + 3


class AwkwardError(Exception):
    """It cannot be unpickled."""

    def __init__(self, a, b="x", *, c=None):
        super().__init__(a)
        self.lock = lambda: a


@pytest.mark.slow
@WORKERS
@pytest.mark.parametrize(
    ("error", "kind", "code", "words"),
    [
        (KeyError, PluginBrokenError, 3, "data set|dataset 'phantom'.*KeyError: 'spoon'"),
        (AwkwardError, PluginBrokenError, 3, "AwkwardError: spoon"),
        (OSError, DataError, 4, "image 5 of 12 .*cannot be used: spoon"),
        (MemoryError, SsmdiffError, 1, "the host is out of memory with 2 images of 16 x 16"),
    ],
)
def test_whatever_a_data_set_raises(tmp_path, monkeypatch, workers, error, kind, code, words):
    monkeypatch.setattr(PhantomDataset, "__getitem__", failing(PhantomDataset.__getitem__, error))
    with pytest.raises(kind, match=words) as refused:
        run(tmp_path, workers)
    assert refused.value.exit_code == code
    assert f"step {saved_is_last(tmp_path)} is saved" in one_sentence(refused)


def failing(plain, error):
    def read(self, index):
        if index == 5:
            raise error("spoon")
        return plain(self, index)

    return read


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_reader(tmp_path, monkeypatch, number):
    """torch raises it from a signal handler in the midst of a step; here it waits for its end."""
    killed = []

    class Listener:
        @hookimpl
        def ssmdiff_step_end(self, record):
            if record.step == 3:
                os.kill(readers[0]._workers[0].pid, number)
                killed.append(record.step)
                time.sleep(0.3)

    readers = []
    plain = stream._told

    def remembering(batches):
        readers.append(batches)
        return plain(batches)

    monkeypatch.setattr(stream, "_told", remembering)
    layers = ssmdiff.merge(SMALL, {"data": {"workers": 2}, "train": {"steps": 1000}})
    with pytest.raises(DataError) as refused:
        train(layers, tmp_path / "run", callbacks=[Listener()])
    assert killed == [3]
    assert refused.value.exit_code == 4
    text = one_sentence(refused)
    assert f"process {readers[0]._workers[0].pid}, killed by {number.name}" in text
    assert f"step {saved_is_last(tmp_path)} is saved" in text
    assert "fewer --workers" in text


@pytest.mark.parametrize("error", [EOFError, ConnectionResetError, FileNotFoundError])
def test_a_reader_that_ends_while_its_images_are_fetched(error):
    """The tensors of a batch lie with the reader; its end is seen a little after they are gone."""
    reader = multiprocessing.get_context("fork").Process(
        target=lambda: (time.sleep(0.2), os._exit(9))
    )
    reader.start()

    class Batches:
        _workers = (reader,)

        def __next__(self):
            raise error

    with pytest.raises(stream.ReaderDiedError, match=rf"process {reader.pid}, exit code 9"):
        next(stream._told(Batches()))


def test_an_error_while_the_readers_live_is_itself(monkeypatch):
    monkeypatch.setattr(stream, "_SECONDS_TO_DIE", 0.1)
    reader = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    reader.start()

    class Batches:
        _workers = (reader,)

        def __next__(self):
            raise OSError(24, "Too many open files")

    with pytest.raises(OSError, match="Too many open files"):
        next(stream._told(Batches()))
    reader.kill()


@pytest.mark.slow
def test_a_reader_that_exits(tmp_path, monkeypatch):
    """N7: os._exit in a data set, in a process of its own."""

    def leaves(self, index):
        if index == 5:
            os._exit(9)
        return plain(self, index)

    plain = PhantomDataset.__getitem__
    monkeypatch.setattr(PhantomDataset, "__getitem__", leaves)
    with pytest.raises(DataError, match=r"a process that reads images died \(.*exit code 9"):
        run(tmp_path, 2)
