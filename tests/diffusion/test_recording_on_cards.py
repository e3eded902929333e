"""Recording launches where there are several cards and threads, on a stand-in for torch.cuda.

The stand-in does what torch's documentation and its Python code say of devices, streams and
captures: streams are of the device that is current when they are made; ``torch.cuda.graph`` makes
its own once in a process; a graph holds what is launched on the device of its stream; what another
thread allocates during a capture in the mode ``global`` fails; and a capture that fails leaves its
stream set.
"""

from __future__ import annotations

import threading
import warnings
from contextlib import contextmanager

import pytest
import torch
from ssmdiff.diffusion.cuda_graphs import CaptureError, RecordedDenoiser, capture_cuda


class OnCard(torch.Tensor):
    """A tensor that says it lies on a card."""

    is_cuda = True
    card = 0

    def get_device(self):
        return self.card

    def clone(self):
        return on_card(torch.Tensor.clone(self), self.card)


def on_card(values, card):
    found = values.as_subclass(OnCard)
    found.card = card
    return found


class Stream:
    def __init__(self, cards):
        self.cards, self.device = cards, cards.device

    def wait_stream(self, other):
        assert self.device == other.device


class Cards:
    """Two cards, each with a default stream."""

    def __init__(self, monkeypatch):
        self.device = 0
        self.streams = {}
        for self.device in (1, 0):
            self.streams[self.device] = Stream(self)
        self.default = dict(self.streams)
        self.capturing = self.of_capture = None
        self.mode = ""
        self.of_graphs = None
        self.refuses = False
        for name, value in {
            "_exchange_device": self.exchange,
            "_maybe_exchange_device": self.exchange,
            "current_stream": lambda device=None: self.streams[self.device],
            "Stream": lambda: Stream(self),
            "stream": self.stream,
            "CUDAGraph": lambda: Graph(self),
            "graph": self.graph,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)

    def exchange(self, device):
        before = self.device
        self.device = device if device >= 0 else before
        return before

    @contextmanager
    def stream(self, stream):
        device, before = self.device, self.streams[stream.device]
        self.device, self.streams[stream.device] = stream.device, stream
        try:
            yield
        finally:
            self.device, self.streams[stream.device] = device, before

    @contextmanager
    def graph(self, graph, pool=None, stream=None, capture_error_mode="global"):
        if stream is None:
            stream = self.of_graphs = self.of_graphs or Stream(self)
        before = self.device, self.streams[stream.device]
        self.device, self.streams[stream.device] = stream.device, stream
        self.capturing, self.of_capture, self.mode = graph, stream, capture_error_mode
        yield
        self.capturing, self.of_capture, self.mode = None, None, ""
        if self.refuses:
            raise RuntimeError("capture failed\nwhere")
        self.device, self.streams[stream.device] = before

    def launch(self, card, work):
        """A kernel on the stream of its card: recorded if that one is captured, else done."""
        if self.capturing is not None and self.streams[card] is self.of_capture:
            self.capturing.launches.append(work)
        else:
            work()

    def pins_memory(self):
        """What the thread of a DataLoader does."""
        if self.mode == "global":
            raise RuntimeError("operation not permitted when stream is capturing")


class Graph:
    def __init__(self, cards):
        self.launches = []

    def replay(self):
        for launch in self.launches:
            launch()


@pytest.fixture
def cards(monkeypatch):
    return Cards(monkeypatch)


def twice(cards, card):
    """A network of one kernel on a card: 2 x + t."""

    def denoise(x, timesteps, orders):
        y = torch.full_like(x, -1.0)
        cards.launch(card, lambda: y.copy_(2 * x + timesteps[:, None]))
        return y

    return denoise


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_launches_are_recorded_on_the_card_where_the_tensors_lie(cards, order):
    """Not on the current one: that graph would be empty, and each step's answer the first one's."""
    for card in order:
        recorded = RecordedDenoiser(twice(cards, card), capture_cuda)
        for step in range(3):
            x = on_card(torch.full((2, 4), float(step)), card)
            found = recorded(x, on_card(torch.full((2,), 10.0 * step), card), [])
            assert torch.equal(found.as_subclass(torch.Tensor), torch.full((2, 4), 12.0 * step))
        assert cards.device == 0
        assert cards.streams == cards.default


def test_another_thread_may_pin_memory_while_launches_are_recorded(cards):
    """A run that is judged as it trains is sampled while its reader goes on."""
    said = []

    def pins():
        try:
            cards.pins_memory()
        except RuntimeError as error:
            said.append(str(error))

    def run():
        thread = threading.Thread(target=pins)
        thread.start()
        thread.join()
        return torch.zeros(1)

    capture_cuda(run)
    assert said == []


def test_what_cannot_be_recorded_leaves_the_stream_as_it_was(cards):
    cards.refuses = True
    with pytest.raises(CaptureError, match=r"^capture failed$"):
        capture_cuda(lambda: torch.zeros(1))
    assert cards.streams == cards.default
    recorded = RecordedDenoiser(twice(cards, 1), capture_cuda)
    x, t = on_card(torch.ones(2, 4), 1), on_card(torch.ones(2), 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert recorded(x, t, []).tolist() == [[3.0] * 4] * 2
    assert (cards.device, cards.streams) == (0, cards.default)
