"""Export to ONNX: one file for every lambda, batch and length, and a proof of it.

    >>> from espnet_ofa.zoo.onnx import export_onnx
    >>> export_onnx("exp/upstream", "model.onnx")               # or a hub id
    >>> export_onnx("exp/upstream", "model.int8.onnx", int8=True)

The file runs without espnet_ofa and without torch; see
:mod:`espnet_ofa.zoo.onnx_runtime`.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from huggingface_hub import metadata_load
from torch import Tensor, nn

from espnet_ofa import __version__
from espnet_ofa.checksums import CARD_NAME
from espnet_ofa.files import write_file
from espnet_ofa.hub import pull
from espnet_ofa.subsampling.rate import MAX_LAM
from espnet_ofa.upstream import OFAUpstream
from espnet_ofa.upstream.checkpoint import CONFIG_NAME, WEIGHTS_NAME, from_pretrained
from espnet_ofa.upstream.extractor import SAMPLE_RATE
from espnet_ofa.zoo.onnx_check import Agreement, check_agreement
from espnet_ofa.zoo.onnx_graph import UpstreamGraph

if TYPE_CHECKING:
    from onnx import ModelProto

#: 18 is the least that torch's exporter writes. In 23 attention is an operator of its
#: own, which ONNX Runtime refuses with a mask that is not repeated for each query.
OPSETS = range(18, 23)
DEFAULT_OPSET = 18
OUTPUTS = ("last", "all")
_MOST_BYTES = 2**31 - 2**24  # protobuf ends at 2 GiB; some is left for the graph
_SCOPES = "pkg.torch.onnx.name_scopes"  # which module a node comes from
_DECIDING = (".extractor", ".compressor")  # modules on which the units depend


class Exported(NamedTuple):
    """What was written.

    Attributes:
        path: the file.
        size: its bytes.
        agreement: how close it is to PyTorch.
    """

    path: Path
    size: int
    agreement: Agreement


def export_onnx(
    upstream: OFAUpstream | str | Path,
    path: str | Path,
    *,
    num_layers: int | None = None,
    outputs: str = "last",
    opset: int = DEFAULT_OPSET,
    int8: bool = False,
    name: str | None = None,
    license: str | None = None,
) -> Exported:
    """Export an upstream and compare the file with PyTorch before it is kept.

    Inputs: ``wave`` (B, L) float32 at 16 kHz, ``lengths`` (B,) int64, and ``lam``, a
    float32 scalar in [0, 2], where the compressor has one. Outputs: ``hidden``
    (B, U, D), ``unit_lengths`` (B,) and ``durations`` (B, U) in frames.

    Args:
        upstream: an upstream, a directory, a zip or a hub id.
        path: the file to write or replace; left alone if the check fails.
        num_layers: so many Transformer layers; all by default.
        outputs: ``last``, or ``all``: ``hidden_0``, the embedding, to ``hidden_N``.
        opset: version of ONNX's operators, 18 to 22.
        int8: weights of the Transformer's linear layers as 8 bit integers, their input
            quantised when it runs. What decides where units end, extractor and
            predictor, stays as it is, so that lengths are those of the float model.
        name: of the model, for the file's metadata; by default the directory's or hub
            id.
        license: of the weights, likewise; by default what its card says.

    Raises:
        ImportError: onnx, onnxruntime or onnxscript is missing.
        FileNotFoundError: no upstream there.
        ValueError: an option out of range, a part that cannot be exported, or a file
            that does not compute what PyTorch computes.
    """
    require_packages()
    if opset not in OPSETS:
        raise ValueError(
            f"opset must be between {OPSETS[0]} and {OPSETS[-1]}; got {opset}"
        )
    if outputs not in OUTPUTS:
        raise ValueError(f"outputs must be {' or '.join(OUTPUTS)}; got {outputs!r}")
    model, facts = _load(upstream, name, license)
    graph = UpstreamGraph(copy.deepcopy(model), num_layers, outputs == "all")
    layers = model.config.layers if num_layers is None else num_layers
    states = ["hidden"]
    if outputs == "all":
        states = [f"hidden_{i}" for i in range(layers + 1)]
    names = [*states, "unit_lengths", "durations"]

    def reference(
        wave: Tensor, lengths: Tensor, lam: float | None
    ) -> dict[str, Tensor]:
        out = model(wave, lengths, lam, num_layers)
        hidden = out.hidden_states[-len(states) :]
        return dict(zip(names, [*hidden, out.lengths, out.durations], strict=True))

    config = model.config
    facts |= {
        "task": "speech encoder",
        "extractor": config.extractor,
        "layers": str(layers),
        "dim": str(config.dim),
    }
    proto = trace(graph, graph.uses_lam, names, opset)
    return write_checked(proto, path, facts, reference, int8)


def require_packages() -> None:
    """Raise ImportError unless everything that exporting needs is installed."""
    needed = ("onnx", "onnxscript", "onnxruntime")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"exporting needs {', '.join(missing)}: pip install 'espnet-ofa[onnx]'"
        )


def _load(
    upstream: OFAUpstream | str | Path, name: str | None, license: str | None
) -> tuple[OFAUpstream, dict[str, str]]:
    """The upstream on the CPU in fp32 and eval mode, and the file's metadata."""
    if isinstance(upstream, OFAUpstream):
        model = copy.deepcopy(upstream)
        found = "unnamed"
    else:
        folder = pull(upstream, only=[CONFIG_NAME, WEIGHTS_NAME, CARD_NAME])
        model = from_pretrained(folder)
        is_here = Path(upstream).expanduser().exists()
        found = folder.resolve().name if is_here else str(upstream)
        license = license or _license(folder)
    return model.cpu().float().eval(), describe(
        model, name or found, license or "not stated"
    )


def describe(upstream: OFAUpstream, name: str, license: str) -> dict[str, str]:
    """Metadata that every exported file has."""
    facts = {
        "name": name,
        "license": license,
        "espnet_ofa": __version__,
        "torch": str(torch.__version__),
        "sample_rate": str(SAMPLE_RATE),
        "frame_ms": f"{upstream.frame_ms:g}",
        "compressor": upstream.config.compressor,
    }
    if upstream.compressor.uses_lam:
        facts |= {"lam_min": "0", "lam_max": f"{MAX_LAM:g}"}
    return facts


def _license(folder: Path) -> str | None:
    """What the card beside the weights says."""
    card = folder / CARD_NAME
    facts = metadata_load(card) if card.is_file() else None
    return str(facts["license"]) if facts and "license" in facts else None


def trace(
    graph: nn.Module, uses_lam: bool, outputs: list[str], opset: int
) -> ModelProto:
    """Trace a graph of wave, lengths and, maybe, lambda.

    Raises:
        ValueError: it is too large for one file, or torch cannot trace it.
    """
    size = sum(x.numel() * x.element_size() for x in graph.state_dict().values())
    if size > _MOST_BYTES:
        raise ValueError(
            f"the weights take {size / 2**30:.1f} GiB; an ONNX file holds less than 2. "
            "Export fewer layers (num_layers)"
        )
    samples = 9000
    lengths = torch.tensor([samples, 5000])
    example = [torch.randn(2, samples), lengths, torch.tensor(0.5)]
    rows = torch.export.Dim("batch", min=1)
    time = torch.export.Dim("samples", min=1)
    shapes = [{0: rows, 1: time}, {0: rows}, None]
    names = ["wave", "lengths", "lam"]
    count = 3 if uses_lam else 2
    with _quiet():
        try:
            program: Any = torch.onnx.export(
                graph.eval(),
                tuple(example[:count]),
                dynamo=True,
                dynamic_shapes=tuple(shapes[:count]),
                input_names=names[:count],
                output_names=outputs,
                opset_version=opset,
                verbose=False,
            )
        except (RuntimeError, TypeError) as e:  # all of the exporter's are
            cause = " ".join(str(e.__cause__ or e).split())[:500]
            raise ValueError(
                f"torch {torch.__version__} cannot export this model to ONNX: {cause}. "
                "Known to work with torch 2.13"
            ) from e
    return program.model_proto


def write_checked(
    proto: ModelProto,
    path: str | Path,
    facts: Mapping[str, str],
    reference: Any,
    int8: bool,
) -> Exported:
    """Quantise if asked, describe, compare with PyTorch, and only then keep a file."""
    import onnx

    agreement: list[Agreement] = []

    def write(draft: Path) -> None:
        final = quantise(proto) if int8 else proto
        _tidy(final)
        facts_ = {**facts, "precision": "int8" if int8 else "float32"}
        onnx.helper.set_model_props(final, facts_)
        final.producer_name, final.producer_version = "espnet_ofa", __version__
        onnx.save(final, draft)
        agreement.append(check_agreement(draft, reference, int8=int8))

    path = write_file(path, write)
    return Exported(path, path.stat().st_size, agreement[0])


def quantise(proto: ModelProto) -> ModelProto:
    """int8 weights for linear layers behind the compressor, one scale per column.

    Seven bits of the eight: on x86 processors without VNNI, sums of two full products
    overflow.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    weights = {x.name for x in proto.graph.initializer}
    nodes = []
    for node in proto.graph.node:
        scopes = [x.value for x in node.metadata_props if x.key == _SCOPES]
        late = scopes and not any(part in scopes[0] for part in _DECIDING)
        if node.op_type == "MatMul" and node.input[1] in weights and late:
            nodes.append(node.name)
    with tempfile.TemporaryDirectory(prefix="espnet_ofa_") as folder, _quiet():
        target = Path(folder, "model.onnx")
        quantize_dynamic(
            proto,
            target,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=nodes,
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(target)


def _tidy(proto: ModelProto) -> None:
    """Take out where nodes come from (paths of this machine); name sizes."""
    graph = proto.graph
    for item in [*graph.node, *graph.value_info, *graph.input, *graph.output]:
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    for item in graph.initializer:
        item.ClearField("metadata_props")
    graph.ClearField("metadata_props")
    for node in graph.output:
        dims = node.type.tensor_type.shape.dim
        if len(dims) > 1:
            dims[1].dim_param = "units"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages and plans of its own."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "root")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
