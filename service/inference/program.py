"""A network split where its noise begins: a deterministic prefix and a stochastic suffix.

The prefix runs once on B rows, the suffix on passes × rows. A node belongs to the suffix if it is
a site or reads one that does; what the suffix reads of the prefix is its boundary.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, fx, nn

from service.inference import rewrites
from service.inference.boundary import Boundary
from service.inference.exporting import NotExpressible, graph_of
from service.inference.noise import Noise
from service.inference.operators import attention_weights
from service.inference.rewrites import BATCH_DIM, module_of
from service.inference.suffix import Chain, ChannelMix, Drop, Linear, Redone, Spread
from service.types import Site

aten = torch.ops.aten

_SITES = (Drop, Redone, ChannelMix, Chain)
_DROPS_FROM_DETERMINISTIC = (Drop, ChannelMix, Chain)
"""Parts that take a deterministic tensor as it is and give it lanes themselves."""


class Program:
    """Runs a network's passes; made by `build_program`.

    Args:
        prefix: one input → the boundary's values.
        suffix: the number of passes, the noise and the boundary's values → outputs [L · B, ...].
        batch_dims: of the boundary's values.
        row_shape: of the inputs it takes, None for a dimension that may vary.
        dtype: that the suffix computes in, None for the network's own.
        prefix_dtype: likewise of the prefix.
        channels_last: whether images lie channel by channel of a pixel.
    """

    groups_together = True

    def __init__(
        self,
        prefix: fx.GraphModule,
        suffix: fx.GraphModule,
        batch_dims: Sequence[int | None],
        row_shape: Sequence[int | None],
        dtype: torch.dtype | None = None,
        prefix_dtype: torch.dtype | None = None,
        *,
        channels_last: bool = False,
    ) -> None:
        self._prefix, self._suffix = prefix, suffix
        self._batch_dims = tuple(batch_dims)
        self._row_shape = tuple(row_shape)
        self._dtype, self._prefix_dtype = dtype, prefix_dtype
        self._channels_last = channels_last

    @property
    def chains(self) -> list[Chain]:
        """Parts that may thin themselves."""
        return [part for part in self._suffix.modules() if isinstance(part, Chain)]

    def thin_from(self, rows: int | None) -> None:
        """From how many rows on chains thin themselves; None for never."""
        for chain in self.chains:
            chain.thinned_from_rows = rows

    @property
    def variable_dims(self) -> list[int]:
        """Dimensions of the inputs, beside the first, that may vary."""
        return [dim + 1 for dim, size in enumerate(self._row_shape) if size is None]

    @property
    def weights(self) -> int:
        """How many numbers the network has, biases and the like aside."""
        graphs = (self._prefix, self._suffix)
        return sum(p.numel() for graph in graphs for p in graph.parameters() if p.dim() > 1)

    def takes(self, inputs: Tensor) -> bool:
        """Whether it was made for rows of this shape."""
        shape = inputs.shape[1:]
        return len(shape) == len(self._row_shape) and all(
            wanted in (None, size) for wanted, size in zip(self._row_shape, shape, strict=True)
        )

    def size(self) -> tuple[int, int]:
        """How many operations the prefix and the suffix have."""
        kinds = ("call_function", "call_module", "call_method")
        prefix, suffix = (
            sum(node.op in kinds for node in graph.graph.nodes)
            for graph in (self._prefix, self._suffix)
        )
        return prefix, suffix

    def open(self, inputs: Tensor) -> Boundary:
        """Run the prefix on inputs [B, D...]."""
        if self._prefix_dtype is not None and inputs.dtype.is_floating_point:
            inputs = inputs.to(self._prefix_dtype)
        if self._channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        values = self._prefix.forward(inputs)
        if self._dtype is not None:
            values = [
                v.to(self._dtype) if isinstance(v, Tensor) and v.dtype.is_floating_point else v
                for v in values
            ]
        return Boundary(tuple(values), self._batch_dims, len(inputs))

    def run(self, boundary: Boundary, noise: Noise) -> Tensor:
        """Outputs [T, B, ...] of all rows of the boundary.

        Args:
            boundary: of groups · rows rows, group after group.
            noise: whose layout they have.
        """
        layout = noise.layout
        outputs: Tensor = self._suffix.forward(layout.passes, noise, *boundary.values)
        if self._dtype is not None:
            outputs = outputs.float()
        split = outputs.unflatten(0, (layout.groups, layout.passes, layout.rows))
        by_pass: Tensor = split.transpose(0, 1).flatten(1, 2)
        return by_pass

    def in_precision(self, dtype: torch.dtype, *, prefix: bool) -> Program:
        """The same with the suffix's numbers, and maybe the prefix's, in another type."""
        suffix = _converted(self._suffix, dtype)
        return Program(
            _converted(self._prefix, dtype) if prefix else self._prefix,
            suffix,
            self._batch_dims,
            self._row_shape,
            dtype,
            dtype if prefix else None,
            channels_last=self._channels_last,
        )

    @property
    def has_images(self) -> bool:
        """Whether its inputs are [B, C, H, W] and something convolves them."""
        graphs = (self._prefix.graph, self._suffix.graph)
        convolves = any(node.target is aten.conv2d.default for g in graphs for node in g.nodes)
        return convolves and len(self._row_shape) == 3

    def with_channels_last(self) -> Program:
        """The same with images, and the weights that convolve them, in that order in memory."""
        prefix, suffix = copy.deepcopy(self._prefix), copy.deepcopy(self._suffix)
        for graph in (prefix, suffix):
            for weight in graph.parameters():
                if weight.dim() == 4:
                    weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        return Program(prefix, suffix, self._batch_dims, self._row_shape, channels_last=True)


def _converted(graph_module: fx.GraphModule, dtype: torch.dtype) -> fx.GraphModule:
    converted = copy.deepcopy(graph_module)
    if dtype.itemsize == 2:
        rewrites.fold_scales(converted)
    converted.to(dtype)
    floating = (torch.float32, torch.float64)
    for node in converted.graph.nodes:
        if node.kwargs.get("dtype") in floating:
            node.kwargs = {**node.kwargs, "dtype": dtype}
    converted.recompile()
    return converted


def build_program(
    network: nn.Module,
    sites: Sequence[Site],
    batch_dims: Sequence[int | None],
    inputs: Tensor,
    variable: Collection[int] = (),
) -> Program:
    """Export a network and split it.

    Args:
        network: with what drops out in train mode.
        sites: that were found in it.
        batch_dims: of their noise.
        inputs: [B, D...], B ≥ 2.
        variable: dimensions of `inputs`, beside the first, that may vary.

    Raises:
        NotExpressible: it cannot be exported, or something in it cannot be split.
    """
    graph_module = graph_of(network, inputs, variable)
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.op == "call_module" and not node.users:
            graph.erase_node(node)  # guards of the exporter
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    if len(placeholders) != 1:
        raise NotExpressible(f"it takes {len(placeholders)} inputs")
    row_shape = [
        None if isinstance(size, torch.SymInt) else size
        for size in placeholders[0].meta["val"].shape[1:]
    ]
    rewrites.take_any_order_in_memory(graph)
    rewrites.make_functional(graph)
    rewrites.make_sites_explicit(graph_module, [site.kind for site in sites], batch_dims)
    _erase_dead(graph)
    rewrites.sink_drops(graph_module)
    deterministic = _deterministic(graph_module)
    rewrites.share_channel_products(graph_module, deterministic)
    rewrites.chain_layers(graph_module, deterministic)
    return _split(graph_module, placeholders[0], row_shape)


def _deterministic(graph_module: fx.GraphModule) -> set[fx.Node]:
    stochastic: set[fx.Node] = set()
    for node in graph_module.graph.nodes:
        if (
            module_of(graph_module, node, nn.Module) is not None
            and isinstance(graph_module.get_submodule(str(node.target)), _SITES)
        ) or any(other in stochastic for other in node.all_input_nodes):
            stochastic.add(node)
    return set(graph_module.graph.nodes) - stochastic


class _BatchDims:
    """Which dimension of a node's value holds the rows, told from the symbols of the example."""

    def __init__(self, placeholder: fx.Node) -> None:
        size = placeholder.meta["val"].shape[0]
        if not isinstance(size, torch.SymInt):
            raise NotExpressible("its graph takes one number of rows only")
        self._symbol = size.node.expr

    def of(self, node: fx.Node) -> int | None:
        """The dimension; 0 for a size that grows with the rows; None without rows."""
        if BATCH_DIM in node.meta:
            found: int = node.meta[BATCH_DIM]
            return found
        value = node.meta.get("val")
        if isinstance(value, torch.SymInt):
            return self._of_size(node, value)
        if not isinstance(value, Tensor):
            if isinstance(value, int | float | bool) or node.op == "get_attr":
                return None
            raise NotExpressible(f"{node} is no tensor or size")
        dims = [dim for dim, size in enumerate(value.shape) if self._has_rows(size)]
        if len(dims) > 1:
            raise NotExpressible(f"{node} has the rows in several dimensions")
        return dims[0] if dims else None

    def _has_rows(self, size: object) -> bool:
        return isinstance(size, torch.SymInt) and self._symbol in size.node.expr.free_symbols

    def _of_size(self, node: fx.Node, value: torch.SymInt) -> int | None:
        if not self._has_rows(value):
            return None
        if self._symbol in (value.node.expr / self._symbol).free_symbols:
            raise NotExpressible(f"{node} is a size that does not grow with the rows alone")
        return 0


def _split(
    graph_module: fx.GraphModule, placeholder: fx.Node, row_shape: Sequence[int | None]
) -> Program:
    deterministic = _deterministic(graph_module)
    nodes = list(graph_module.graph.nodes)
    output = nodes[-1]
    result = output.args[0]
    if isinstance(result, list | tuple) and len(result) == 1:
        result = result[0]
    if not isinstance(result, fx.Node):
        raise NotExpressible("it returns something else than one tensor")
    batch_dims = _BatchDims(placeholder)
    constants = _constants(nodes)
    prefix, suffix = fx.Graph(), fx.Graph()
    in_prefix: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        if node in deterministic and node is not output:
            in_prefix[node] = prefix.node_copy(node, in_prefix.__getitem__)
    passes, noise = suffix.placeholder("passes"), suffix.placeholder("noise")
    boundary: list[fx.Node] = []
    dims: list[int | None] = []
    in_suffix: dict[fx.Node, fx.Node] = {}
    spread: dict[fx.Node, fx.Node] = {}

    def raw(node: fx.Node) -> fx.Node:
        """A deterministic node's value on B rows."""
        if node not in in_suffix:
            if node in constants:
                in_suffix[node] = suffix.node_copy(node, raw)
            else:
                boundary.append(in_prefix[node])
                dims.append(batch_dims.of(node))
                with suffix.inserting_after(_last_placeholder(suffix)):
                    in_suffix[node] = suffix.placeholder(f"boundary_{len(boundary)}")
        return in_suffix[node]

    def with_lanes(node: fx.Node) -> fx.Node:
        """A node's value on lanes · B rows."""
        if node not in deterministic:
            return in_suffix[node]
        plain = raw(node)
        dim = None if node in constants else batch_dims.of(node)
        if dim is None:
            return plain
        if node not in spread:
            if isinstance(node.meta.get("val"), torch.SymInt):
                spread[node] = suffix.call_function(operator.mul, (plain, passes))
            else:
                name = f"spread_{len(spread)}"
                graph_module.add_submodule(name, Spread(dim))
                spread[node] = suffix.call_module(name, (plain, noise))
        return spread[node]

    for node in nodes:
        if node in deterministic or node is output:
            continue
        part = module_of(graph_module, node, nn.Module)
        if isinstance(part, _DROPS_FROM_DETERMINISTIC) and node.args[0] in deterministic:
            _note_deterministic(part)
            in_suffix[node] = suffix.call_module(str(node.target), (raw(node.args[0]), noise))
        elif isinstance(part, Redone):
            arguments = fx.map_arg(node.args, with_lanes)
            named = fx.map_arg(node.kwargs, with_lanes)
            in_suffix[node] = suffix.call_module(str(node.target), (noise, *arguments), named)
        elif isinstance(part, _SITES):
            in_suffix[node] = suffix.call_module(
                str(node.target), (with_lanes(node.args[0]), noise)
            )
        else:
            in_suffix[node] = suffix.node_copy(node, with_lanes)
        in_suffix[node].meta = dict(node.meta)
    if batch_dims.of(result) != 0:
        raise NotExpressible("its output has the rows elsewhere than in the first dimension")
    suffix.output(with_lanes(result))
    prefix.output(tuple(boundary))
    graphs = []
    for graph in (prefix, suffix):
        _erase_dead(graph)
        graph.lint()
        graphs.append(fx.GraphModule(graph_module, graph))
    rewrites.fuse_linear_layers(graphs[1])
    _work_in_place(graphs[1])
    _erase_dead(graphs[1].graph)
    # Built anew, it holds only the weights that it still reads.
    return Program(graphs[0], fx.GraphModule(graphs[1], graphs[1].graph), dims, row_shape)


def _erase_dead(graph: fx.Graph) -> None:
    graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))


def _last_placeholder(graph: fx.Graph) -> fx.Node:
    last: fx.Node = [node for node in graph.nodes if node.op == "placeholder"][-1]
    return last


def _note_deterministic(part: nn.Module) -> None:
    if isinstance(part, Drop):
        part.from_deterministic = True


def _constants(nodes: Sequence[fx.Node]) -> set[fx.Node]:
    """Nodes that depend on nothing but the network's own numbers."""
    found: set[fx.Node] = set()
    for node in nodes:
        computed = node.op == "call_function" and node.all_input_nodes
        if node.op == "get_attr" or (computed and found.issuperset(node.all_input_nodes)):
            found.add(node)
    return found


_FRESH = {
    aten.linear.default,
    aten.matmul.default,
    aten.bmm.default,
    aten.addmm.default,
    aten.mm.default,
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv3d.default,
    aten.relu.default,
    aten.gelu.default,
    aten.silu.default,
    aten.tanh.default,
    aten.sigmoid.default,
    aten.elu.default,
    aten.leaky_relu.default,
    aten.softmax.int,
    aten.layer_norm.default,
    aten.batch_norm.default,
    aten.add.Tensor,
    aten.mul.Tensor,
    aten.sub.Tensor,
    aten.max_pool2d.default,
    attention_weights,
}
"""Operations whose result is a tensor of its own, that nothing else shares."""


def _work_in_place(graph_module: fx.GraphModule) -> None:
    """Let drops write to tensors that nobody else reads, and add a residual while they multiply."""
    graph = graph_module.graph
    for node in list(graph.nodes):
        drop = module_of(graph_module, node, Drop)
        if drop is None:
            continue
        read = node.args[0]
        fresh = read.target in _FRESH or module_of(graph_module, read, Linear) is not None
        drop.in_place = fresh and len(read.users) == 1
        user = next(iter(node.users)) if len(node.users) == 1 else None
        if user is None or user.target is not aten.add.Tensor or user.kwargs:
            continue
        others = [a for a in user.args if a is not node]
        if len(others) != 1 or not isinstance(others[0], fx.Node) or len(user.args) != 2:
            continue
        if _same_shape(user, others[0]) and _same_shape(user, node):
            with graph.inserting_before(user):
                fused = graph.call_module(str(node.target), (*node.args, others[0]))
            fused.meta = dict(user.meta)
            user.replace_all_uses_with(fused)
            graph.erase_node(user)
            graph.erase_node(node)
    graph.lint()
    graph_module.recompile()


def _same_shape(one: fx.Node, other: fx.Node) -> bool:
    first, second = one.meta.get("val"), other.meta.get("val")
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        return False
    return str(first.shape) == str(second.shape) and first.dtype == second.dtype
