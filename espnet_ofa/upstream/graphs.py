"""CUDA graphs: a function of fixed shapes is recorded once, and then replayed.

A replay is one launch instead of the hundreds that a short utterance waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

MOST_GRAPHS = 64
MOST_BYTES = 1 << 30  # of all graphs' inputs and outputs
WARM_UPS = 3  # libraries choose kernels and take workspaces in their first calls

Function = Callable[..., tuple[Tensor, ...]]


class Graph(NamedTuple):
    """A recorded function.

    Attributes:
        inputs: what it reads; to be filled before a replay.
        outputs: what it writes, for the next replay of any graph to overwrite.
        replay: runs it.
    """

    inputs: list[Tensor]
    outputs: tuple[Tensor, ...]
    replay: Callable[[], None]

    @property
    def nbytes(self) -> int:
        """Memory that it keeps, beside what all graphs share."""
        return sum(x.nbytes for x in (*self.inputs, *self.outputs))


class Graphs:
    """Runs functions as graphs, of which it keeps those used last.

    Inputs are copied in and outputs copied out, so that results are the caller's. A
    function must be one of few: graphs are told apart by its name, its options and the
    shapes and dtypes of its tensors. Not for several streams or threads at once.

    Args:
        record: makes a :class:`Graph` of a function of tensors, by calling it on
            inputs that are there already.
        most_graphs: graphs that are kept; the least recently used one is dropped.
        most_bytes: of their inputs and outputs together; one graph may have more.
    """

    def __init__(
        self,
        record: Callable[[Function, list[Tensor]], Graph],
        most_graphs: int = MOST_GRAPHS,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.record = record
        self.most_graphs = most_graphs
        self.most_bytes = most_bytes
        self.kept: dict[Hashable, Graph] = {}  # the least recently used one first

    def __call__(
        self, function: Function, *inputs: Tensor, **options: Hashable
    ) -> tuple[Tensor, ...]:
        """Run ``function(*inputs, **options)``."""
        shapes = tuple((x.shape, x.dtype) for x in inputs)
        key = (function.__name__, shapes, *sorted(options.items()))
        graph = self.kept.pop(key, None)
        if graph is None:
            graph = self._record(function, inputs, options)
        self.kept[key] = graph
        for static, given in zip(graph.inputs, inputs, strict=True):
            static.copy_(given)
        graph.replay()
        outputs = tuple(x.clone() for x in graph.outputs)
        self._drop()
        return outputs

    def _record(
        self, function: Function, inputs: Sequence[Tensor], options: dict
    ) -> Graph:
        # Inference mode may be on now and off at the next call, which writes to them.
        with torch.inference_mode(False), torch.no_grad():
            static = [torch.empty_like(x).copy_(x) for x in inputs]
            return self.record(lambda *tensors: function(*tensors, **options), static)

    def _drop(self) -> None:
        """Keep to the limits. The last graph stays: with it goes the memory pool."""
        held = sum(graph.nbytes for graph in self.kept.values())
        while len(self.kept) > 1 and (
            len(self.kept) > self.most_graphs or held > self.most_bytes
        ):
            held -= self.kept.pop(next(iter(self.kept))).nbytes


class CUDARecorder:
    """Records CUDA graphs that share one memory pool.

    Sharing is safe for graphs that never run at the same time and whose outputs are
    copied before another runs. So the pool is as large as the largest graph needs, and
    outputs, which stay.

    Args:
        device: of all tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pool = torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream(device)  # blocks are reused within a stream

    def __call__(self, function: Function, inputs: list[Tensor]) -> Graph:
        """Warm up beside the current stream, as recording demands, and record."""
        with torch.cuda.device(self.device):
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                for _ in range(WARM_UPS):
                    function(*inputs)
            torch.cuda.current_stream().wait_stream(self.stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
                outputs = function(*inputs)
        return Graph(inputs, outputs, graph.replay)
