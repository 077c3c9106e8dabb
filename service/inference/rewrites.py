"""From an exported graph to one in which every site is a part of its own, as early as can be.

Each function takes a graph and leaves one that says the same.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from service.inference.exporting import NotExpressible
from service.inference.graph import RECURRENT, TRAIN_ARGUMENT, attention_rate
from service.inference.operators import OPERATORS, attend, attention_weights
from service.inference.suffix import (
    FUSIBLE,
    Chain,
    ChannelMix,
    ChannelProducts,
    Drop,
    Linear,
    Link,
    Redone,
)

aten = torch.ops.aten

Node = Any
"""An fx.Node; its arguments are anything that a graph can hold, which annotations cannot follow."""

BATCH_DIM = "batch_dim"
"""Entry of a node's metadata: which dimension holds the rows, where the example does not say."""

_BY_ELEMENT = {
    aten.relu.default,
    aten.leaky_relu.default,
}
_BY_CHANNEL = {
    *_BY_ELEMENT,
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.max_pool3d.default,
    aten.avg_pool1d.default,
    aten.avg_pool2d.default,
    aten.avg_pool3d.default,
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool3d.default,
}
"""Operations f with f(a · x) = a · f(x) for a ≥ 0 that is one number an element, or a channel."""

_ACTIVATIONS = {
    aten.relu.default,
    aten.leaky_relu.default,
    aten.elu.default,
    aten.selu.default,
    aten.gelu.default,
    aten.silu.default,
    aten.tanh.default,
    aten.sigmoid.default,
    aten.softplus.default,
    aten.hardtanh.default,
    aten.hardswish.default,
    aten.mish.default,
}

_RANDOM = OPERATORS.keys() - TRAIN_ARGUMENT.keys() - {aten.scaled_dot_product_attention.default}

_NOTHING = {aten.alias.default, aten.contiguous.default, aten.clone.default, aten.detach.default}


def module_of(graph_module: fx.GraphModule, node: object, kind: type[Any]) -> Any:
    """The part of class `kind` that a node calls, or None."""
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return None
    found = graph_module.get_submodule(str(node.target))
    return found if isinstance(found, kind) else None


def _single_user(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


# --- order in memory ---------------------------------------------------------------------------


def take_any_order_in_memory(graph: fx.Graph) -> None:
    """Let tensors be reshaped that do not lie in order, as those do not that a graph spreads."""
    for node in graph.nodes:
        if node.target is aten.view.default:
            node.target = aten.reshape.default


# --- in-place operations -------------------------------------------------------------------------


def make_functional(graph: fx.Graph) -> None:
    """Replace in-place operations by the ones that return what they compute.

    Raises:
        NotExpressible: somebody else sees the tensor that is written to.
    """
    order = {node: index for index, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        if not node.target._schema.is_mutable:
            continue
        name, overload = node.target._schema.name.removeprefix("aten::"), node.target._overloadname
        written = node.args[0]
        plain = getattr(getattr(aten, name.removesuffix("_"), None), overload, None)
        drawn = node.target in OPERATORS
        if not isinstance(written, fx.Node) or not name.endswith("_") or not (plain or drawn):
            raise NotExpressible(f"{node.target} writes to a tensor that others may see")
        if _is_view(written) or any(
            order[user] > order[node] for view in _views(written) for user in view.users
        ):
            raise NotExpressible(f"{node.target} writes through a view of a tensor")
        written.replace_all_uses_with(
            node, delete_user_cb=functools.partial(_comes_later, order, node)
        )
        if plain is not None and not (drawn and plain not in OPERATORS):
            node.target = plain


def _comes_later(order: dict[Node, int], node: Node, user: Node) -> bool:
    return order[user] > order[node]


def _is_view(node: Node) -> bool:
    if node.op in ("placeholder", "get_attr"):
        return True
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target in _NOTHING:
        return False
    return any(
        r.alias_info is not None and not r.alias_info.is_write for r in target._schema.returns
    )


def _views(node: Node) -> list[Node]:
    return [user for user in node.users if _is_view(user)]


# --- sites ---------------------------------------------------------------------------------------


class _Sites:
    """Numbers the sites as the network reaches them, and checks them against those found."""

    def __init__(self, kinds: Sequence[str], batch_dims: Sequence[int | None]) -> None:
        self._kinds, self._batch_dims = kinds, batch_dims
        self.count = 0

    def next(self, kind: str, *, live: bool = True) -> tuple[int, int]:
        """Number and batch dimension of the next site."""
        number = self.count
        self.count += 1
        if number >= len(self._kinds) or self._kinds[number] != kind:
            raise NotExpressible("its graph has other dropout sites than the network")
        batch_dim = self._batch_dims[number]
        if batch_dim is None and live:
            raise NotExpressible(f"site {number + 1} ({kind}) draws one mask for the whole batch")
        return number, batch_dim or 0


def make_sites_explicit(
    graph_module: fx.GraphModule, kinds: Sequence[str], batch_dims: Sequence[int | None]
) -> None:
    """Put a `Drop` or a `Redone` in place of everything that draws.

    Args:
        graph_module: exported with what drops out in train mode.
        kinds: of the sites that were found in the network.
        batch_dims: of their noise.

    Raises:
        NotExpressible: a site has no rows, or the sites are not those of the network.
    """
    sites = _Sites(kinds, batch_dims)
    for node in list(graph_module.graph.nodes):
        if node.op != "call_function":
            continue
        if node.target in RECURRENT and node.args[RECURRENT[node.target] + 2]:
            _spell_out_recurrent(graph_module, node, sites)
        elif rate := attention_rate(node):
            _spell_out_attention(graph_module, node, rate, sites)
        elif node.target in TRAIN_ARGUMENT:
            if not node.args[TRAIN_ARGUMENT[node.target]]:
                if node.target not in RECURRENT:
                    _replace(graph_module, node, node.args[0])
            else:
                _spell_out_dropout(graph_module, node, sites)
        elif node.target in _RANDOM:
            number, batch_dim = sites.next(_random_kind(node))
            _redo(graph_module, node, number, batch_dim)
    if sites.count != len(kinds):
        raise NotExpressible("its graph has other dropout sites than the network")


def _random_kind(node: Node) -> str:
    name = node.target._schema.name.removeprefix("aten::").removesuffix("_").removesuffix("_like")
    return {"uniform": "rand", "normal": "randn"}.get(str(name), str(name))


def _replace(graph_module: fx.GraphModule, node: Node, new: Any) -> None:
    node.replace_all_uses_with(new)
    graph_module.graph.erase_node(node)


def _insert(
    graph_module: fx.GraphModule, name: str, module: torch.nn.Module, *arguments: Any, **named: Any
) -> Node:
    graph_module.add_submodule(name, module)
    return graph_module.graph.call_module(name, arguments, named)


def _redo(graph_module: fx.GraphModule, node: Node, number: int, batch_dim: int) -> None:
    with graph_module.graph.inserting_before(node):
        part = Redone(node.target, number, batch_dim)
        new = _insert(graph_module, f"site_{number}", part, *node.args, **node.kwargs)
    new.meta = dict(node.meta)
    _replace(graph_module, node, new)


def _spell_out_dropout(graph_module: fx.GraphModule, node: Node, sites: _Sites) -> None:
    kind = node.target._schema.name.removeprefix("aten::").removesuffix("_")
    if kind == "native_dropout":
        raise NotExpressible("its graph has native_dropout, which returns its mask as well")
    tensor, rate = node.args[0], float(node.args[1])
    number, batch_dim = sites.next(kind, live=rate > 0.0)
    if rate == 0.0:
        _replace(graph_module, node, tensor)
        return
    if "alpha" in kind:
        _redo(graph_module, node, number, batch_dim)
        return
    drop = Drop(number, rate, batch_dim, by_channel=kind == "feature_dropout")
    with graph_module.graph.inserting_before(node):
        new = _insert(graph_module, f"site_{number}", drop, tensor)
    new.meta = dict(node.meta)
    _replace(graph_module, node, new)


def _spell_out_attention(
    graph_module: fx.GraphModule, node: Node, rate: float, sites: _Sites
) -> None:
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    number, batch_dim = sites.next("attention")
    graph = graph_module.graph
    with graph.inserting_before(node):
        weights = graph.call_function(
            attention_weights,
            (given["query"], given["key"], given.get("attn_mask")),
            {"is_causal": given.get("is_causal", False), "scale": given.get("scale")},
        )
        drop = Drop(number, rate, batch_dim)
        dropped = _insert(graph_module, f"site_{number}", drop, weights)
        output = graph.call_function(attend, (dropped, given["value"]))
    weights.meta[BATCH_DIM] = dropped.meta[BATCH_DIM] = batch_dim
    output.meta = dict(node.meta)
    _replace(graph_module, node, output)


def _spell_out_recurrent(graph_module: fx.GraphModule, node: Node, sites: _Sites) -> None:
    if node.target._overloadname != "input":
        raise NotExpressible("it has packed sequences")
    kind = node.target._schema.name.removeprefix("aten::")
    data, state, weights, biases, layers, rate, _, bidirectional, batch_first = node.args
    if not rate:
        return
    if layers == 1:
        sites.next(kind, live=False)
        return
    graph = graph_module.graph
    directions = 2 if bidirectional else 1
    by_layer = len(weights) // layers
    many_states = isinstance(state, list | tuple)
    states = list(state) if many_states else [state]
    batch_dim = 0 if batch_first else 1
    finals: list[list[Node]] = [[] for _ in states]
    with graph.inserting_before(node):
        for layer in range(layers):
            if layer > 0:
                number, batch_dim = sites.next(kind)
                drop = Drop(number, float(rate), batch_dim)
                data = _insert(graph_module, f"site_{number}", drop, data)
                data.meta[BATCH_DIM] = batch_dim
            own = [
                graph.call_function(
                    aten.slice.Tensor, (s, 0, layer * directions, (layer + 1) * directions)
                )
                for s in states
            ]
            for part in own:
                part.meta[BATCH_DIM] = 1
            single = graph.call_function(
                node.target,
                (
                    data,
                    own if many_states else own[0],
                    weights[layer * by_layer : (layer + 1) * by_layer],
                    biases,
                    1,
                    0.0,
                    False,
                    bidirectional,
                    batch_first,
                ),
            )
            outputs = [_item(graph, single, index) for index in range(1 + len(states))]
            data = outputs[0]
            data.meta[BATCH_DIM] = batch_dim
            for collected, final in zip(finals, outputs[1:], strict=True):
                final.meta[BATCH_DIM] = 1
                collected.append(final)
        together = [graph.call_function(aten.cat.default, (parts,)) for parts in finals]
        for part in together:
            part.meta[BATCH_DIM] = 1
    for user in list(node.users):
        index = user.args[1]
        _replace(graph_module, user, data if index == 0 else together[index - 1])
    graph.erase_node(node)


def _item(graph: fx.Graph, node: Node, index: int) -> Node:
    return graph.call_function(operator.getitem, (node, index))


# --- later, and so on fewer tensors --------------------------------------------------------------


def sink_drops(graph_module: fx.GraphModule) -> None:
    """Drop behind operations that do not mind, so that they run once instead of once a pass.

    A factor ≥ 0 of an element passes through ReLU, one of a channel through pooling as well.
    """
    for node in list(graph_module.graph.nodes):
        drop = module_of(graph_module, node, Drop)
        if drop is None:
            continue
        passing = _BY_CHANNEL if drop.by_channel else _BY_ELEMENT
        while True:
            user = _single_user(node)
            if user is None or user.target not in passing or user.args[0] is not node:
                break
            # x → drop → f  becomes  x → f → drop
            user.replace_all_uses_with(node)
            user.args = (node.args[0], *user.args[1:])
            node.args = (user,)
            user.append(node)
            node.meta = dict(user.meta)


# --- fewer operations than the dense limit -------------------------------------------------------


def _tensor_of(graph_module: fx.GraphModule, node: object) -> Tensor | None:
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    found: Any = graph_module
    for name in str(node.target).split("."):
        found = getattr(found, name)
    return found if isinstance(found, Tensor) else None


def _linear_of(
    graph_module: fx.GraphModule, node: Node, reads: Node
) -> tuple[Tensor, Tensor | None] | None:
    """Weight and bias of a linear layer that reads only `reads`."""
    if node is None or node.target is not aten.linear.default or node.args[0] is not reads:
        return None
    weight = _tensor_of(graph_module, node.args[1])
    bias_node = node.args[2] if len(node.args) > 2 else None
    bias = _tensor_of(graph_module, bias_node)
    if weight is None or (bias_node is not None and bias is None):
        return None
    return weight, bias


_FLATTENING = {aten.flatten.using_ints, aten.view.default, aten.reshape.default}


def share_channel_products(graph_module: fx.GraphModule, deterministic: set[Node]) -> None:
    """A linear layer over flattened channels, some dropped: each channel's share only once.

    Args:
        graph_module: with its sites explicit.
        deterministic: nodes that are the same in every pass.
    """
    for node in list(graph_module.graph.nodes):
        drop = module_of(graph_module, node, Drop)
        if drop is None or not drop.by_channel or node.args[0] not in deterministic:
            continue
        shape = _shape(node)
        flat = _single_user(node)
        if shape is None or len(shape) < 3 or drop.batch_dim != 0:
            continue
        if flat is None or flat.target not in _FLATTENING:
            continue
        flat_shape = _shape(flat)
        linear = _single_user(flat)
        found = _linear_of(graph_module, linear, flat)
        if found is None or linear is None or flat_shape is None:
            continue
        if len(flat_shape) != 2 or str(flat_shape[0]) != str(shape[0]):
            continue
        weight, bias = found
        with graph_module.graph.inserting_before(linear):
            products = _insert(
                graph_module,
                f"channel_products_{drop.site}",
                ChannelProducts(weight),
                node.args[0],
            )
            products.meta[BATCH_DIM] = 1
            deterministic.add(products)
            mix = _insert(
                graph_module, f"channel_mix_{drop.site}", ChannelMix(drop, bias), products
            )
        mix.meta = dict(linear.meta)
        _replace(graph_module, linear, mix)
        for dead in (flat, node):
            graph_module.graph.erase_node(dead)


def _shape(node: Node) -> list[Any] | None:
    value = node.meta.get("val")
    return list(value.shape) if isinstance(value, Tensor) else None


def chain_layers(graph_module: fx.GraphModule, deterministic: set[Node]) -> None:
    """Join dropout and linear layers in turn into `Chain`s, which may thin themselves.

    Args:
        graph_module: with its sites explicit.
        deterministic: nodes that are the same in every pass.
    """
    taken: set[Node] = set()
    for node in list(graph_module.graph.nodes):
        if node in taken:
            continue
        first, last = node, node
        links: list[Link] = []
        weights: list[Tensor] = []
        biases: list[Tensor | None] = []
        inside: list[Node] = []
        while True:
            drop = module_of(graph_module, node, Drop)
            shape = _shape(node) if drop is not None else None
            if drop is None or shape is None or len(shape) != 2 or drop.batch_dim != 0:
                break
            if node is not first and node not in last.users:
                break
            linear = _single_user(node)
            found = _linear_of(graph_module, linear, node)
            if found is None or linear is None or drop.rate >= 1.0:
                break
            links.append(Link(drop, ()))
            weights.append(found[0])
            biases.append(found[1])
            inside += [node, linear]
            last = linear
            activations: list[tuple[Any, tuple[Any, ...]]] = []
            following = _single_user(last)
            while (
                following is not None and following.target in _ACTIVATIONS and not following.kwargs
            ):
                activations.append((_in_place(following.target), tuple(following.args[1:])))
                inside.append(following)
                last = following
                following = _single_user(last)
            links[-1] = Link(drop, tuple(activations))
            if following is None:
                break
            node = following
        if not links:
            continue
        links[0].drop.from_deterministic = first.args[0] in deterministic
        chain = Chain(links, weights, biases)
        with graph_module.graph.inserting_after(last):
            new = _insert(graph_module, f"chain_{links[0].drop.site}", chain, first.args[0])
        new.meta = dict(last.meta)
        last.replace_all_uses_with(new)
        for dead in reversed(inside):
            graph_module.graph.erase_node(dead)
        taken.update(inside)


def _in_place(activation: Any) -> Any:
    """The operation that overwrites its tensor, where there is one: nobody else has a chain's."""
    name = activation._schema.name.removeprefix("aten::") + "_"
    return getattr(getattr(aten, name, None), activation._overloadname, activation)


def fuse_linear_layers(graph_module: fx.GraphModule) -> None:
    """Put a `Linear` in place of every linear layer, with the activation that follows it."""
    for number, node in enumerate(list(graph_module.graph.nodes)):
        found = _linear_of(graph_module, node, node.args[0]) if node.args else None
        if found is None:
            continue
        last, approximate = node, "none"
        user = _single_user(node)
        if user is not None and user.target in FUSIBLE:
            last = user
            approximate = str(user.kwargs.get("approximate", "none"))
        layer = Linear(*found, last.target, approximate)
        with graph_module.graph.inserting_after(last):
            new = _insert(graph_module, f"linear_{number}", layer, node.args[0])
        new.meta = dict(last.meta)
        last.replace_all_uses_with(new)
        graph_module.graph.erase_node(last)
        if last is not node:
            graph_module.graph.erase_node(node)
    graph_module.recompile()


def fold_scales(graph_module: fx.GraphModule) -> None:
    """Let linear layers beside a drop scale their weights by its 1 / (1 − rate).

    For numbers of 16 bits only: what is left of the drop clears bits, several times faster than a
    product in bfloat16, and weights that are scaled before they are rounded are right on average.
    """
    for node in graph_module.graph.nodes:
        chain = module_of(graph_module, node, Chain)
        if chain is not None:
            chain.take_scales()
        drop = module_of(graph_module, node, Drop)
        if drop is None or drop.rate >= 1.0:
            continue
        scale = 1.0 / (1.0 - drop.rate)
        tensor, _, *residual = node.args
        before = module_of(graph_module, tensor, Linear)
        user = _single_user(node)
        after = module_of(graph_module, user, Linear) if user is not None and not residual else None
        only_reader = len(tensor.users) == 1 and tensor not in residual
        if before is not None and before.is_linear and only_reader:
            before.scale(scale, with_bias=True)
        elif after is not None:
            after.scale(scale, with_bias=False)
        else:
            continue
        drop.scaled_elsewhere = True
