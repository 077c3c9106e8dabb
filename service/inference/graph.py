"""A network that came as an exported graph: the same graph with its dropout on, and off."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, fx, nn

from service.errors import ModelBroken
from service.inference.operators import OPERATORS

aten = torch.ops.aten

TRAIN_ARGUMENT: dict[Any, int] = {
    **{
        getattr(aten, name).default: 2
        for kind in ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
        for name in (kind, kind + "_")
    },
    aten.native_dropout.default: 2,
    **{getattr(aten, kind).input: 6 for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu")},
    **{getattr(aten, kind).data: 7 for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu")},
}
"""Operations that have a switch, and which argument it is."""

RECURRENT = {op: index - 2 for op, index in TRAIN_ARGUMENT.items() if index in (6, 7)}
"""Recurrent operations, and which argument is their number of layers."""

_NORMALISATION = {aten.batch_norm.default: 5, aten.instance_norm.default: 5}
"""Operations that would use, and move, the statistics of the batch, and which argument says so."""

_ATTENTION = aten.scaled_dot_product_attention.default
_ATTENTION_RATE = 4


class GraphNetwork(nn.Module):
    """Runs a graph with what drops out on in train mode, and off in eval mode.

    Normalisation is in eval mode in both. It does not matter in which mode the graph was exported,
    as long as its dropout is still in it: `nn.MultiheadAttention` leaves its own out in eval mode.

    Args:
        graph: of one input [B, D...] and one output.
        fixed_rows: the only B that the graph takes, or None where it takes any.

    Raises:
        ModelBroken: the graph draws plain random numbers, so what it does without them is unknown.
    """

    def __init__(self, graph: fx.GraphModule, fixed_rows: int | None) -> None:
        super().__init__()
        self.fixed_rows = fixed_rows
        self.site_paths = _site_paths(graph.graph)
        self.warnings = _lost_attention(graph.graph)
        self._on = _rewritten(graph, dropping=True)
        self._off = _rewritten(graph, dropping=False)

    def dropping_graph(self) -> fx.GraphModule:
        """A copy of the graph with what drops out on."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return fx.GraphModule(self._on, copy.deepcopy(self._on.graph))

    def forward(self, inputs: Tensor) -> Any:
        """Inputs [B, D...] → whatever the graph returns."""
        graph = self._on if self.training else self._off
        if self.fixed_rows is None:
            return graph(inputs)
        count = self.fixed_rows
        # Each row stands in for the whole batch, so that none depends on its neighbours.
        return torch.cat([graph(row.expand(count, *row.shape[1:]))[:1] for row in inputs.split(1)])


def _rewritten(graph_module: fx.GraphModule, *, dropping: bool) -> fx.GraphModule:
    with warnings.catch_warnings():
        # torch's own classes warn of each other when they are copied.
        warnings.simplefilter("ignore", FutureWarning)
        graph = copy.deepcopy(graph_module.graph)
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if node.target in TRAIN_ARGUMENT:
            _set(node, TRAIN_ARGUMENT[node.target], dropping)
        elif node.target is _ATTENTION:
            if not dropping:
                _switch_off_attention(node)
        elif node.target in _NORMALISATION:
            _set(node, _NORMALISATION[node.target], False)
        elif node.target in OPERATORS:
            raise ModelBroken(
                f"the archive draws random numbers of its own ({node.target}, in "
                f"{_path(node) or 'the network itself'}), and does not say what it does without "
                "them; bring it as a network.py with weights.safetensors instead"
            )
        elif _counts_batches(node):
            graph.erase_node(node)
    graph.lint()
    return fx.GraphModule(graph_module, graph)


def _set(node: fx.Node, index: int, value: bool) -> None:
    arguments = list(node.args)
    arguments[index] = value
    node.args = tuple(arguments)


def _switch_off_attention(node: fx.Node) -> None:
    if len(node.args) > _ATTENTION_RATE:
        arguments = list(node.args)
        arguments[_ATTENTION_RATE] = 0.0
        node.args = tuple(arguments)
    if "dropout_p" in node.kwargs:
        node.kwargs = {**node.kwargs, "dropout_p": 0.0}


def _counts_batches(node: fx.Node) -> bool:
    """Whether it is the counter that batch normalisation moves in train mode."""
    first = node.args[0] if node.args else None
    return (
        node.target is aten.add_.Tensor
        and isinstance(first, fx.Node)
        and str(first.target).endswith("num_batches_tracked")
    )


def _lost_attention(graph: fx.Graph) -> tuple[str, ...]:
    """A warning for each attention module that left its dropout behind in an eval-mode export."""
    switches = [n.args[i] for n in graph.nodes if (i := TRAIN_ARGUMENT.get(n.target)) is not None]
    if any(switches):
        return ()
    attention = {
        path: None
        for node in graph.nodes
        for path, kind in node.meta.get("nn_module_stack", {}).values()
        if str(kind).endswith("MultiheadAttention")
    }
    return tuple(
        f"{path} (attention) has lost its own dropout, if it had any: the archive was exported in "
        "eval mode. Export it in train mode, or with candor export"
        for path in attention
    )


def attention_rate(node: fx.Node) -> float:
    """The rate with which an attention node drops; 0 where it is no such node."""
    if node.target is not _ATTENTION:
        return 0.0
    rate = node.args[_ATTENTION_RATE] if len(node.args) > _ATTENTION_RATE else 0.0
    return float(node.kwargs.get("dropout_p", rate))  # type: ignore[arg-type]


def _site_paths(graph: fx.Graph) -> tuple[str, ...]:
    """The module that each random operation came from, one entry a draw, in order."""
    paths: list[str] = []
    for node in graph.nodes:
        if node.target in RECURRENT:
            index = RECURRENT[node.target]
            layers, rate = node.args[index], node.args[index + 1]
            paths += [_path(node)] * (max(1, layers - 1) if rate else 0)
        elif node.target is _ATTENTION:
            paths += [_path(node)] if attention_rate(node) else []
        elif node.target in TRAIN_ARGUMENT:
            paths.append(_path(node))
    return tuple(paths)


def _path(node: fx.Node) -> str:
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return stack[-1][0] if stack else ""
