"""Every ATen operation that draws random numbers, redone with numbers that are handed in.

PyTorch runs all dropout, whoever wrote it, through a few operations; each has one entry here that
computes the same from a `Draw`. To add a kind of dropout is to add an entry and its statistical
test.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from service.inference.draws import Draw
from service.inference.masks import exponential, keep, normal, uniform

aten = torch.ops.aten

# A layer by itself is not what a GPU's library was given its weights for; it copies them then.
warnings.filterwarnings("ignore", "RNN module weights are not part", UserWarning)


class Source(Protocol):
    """Where an operation gets its numbers: see `draws.DrawSource`."""

    def draw(
        self,
        kind: str,
        rate: float | None,
        shape: Sequence[int],
        device: torch.device,
        *,
        live: bool = True,
    ) -> Draw | None: ...


Operator = Callable[..., Any]


# --- dropout -------------------------------------------------------------------------------------


def _elements(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


def _channels(tensor: Tensor) -> tuple[int, ...]:
    return (*tensor.shape[:2], *(1,) * (tensor.dim() - 2))


_SELU_LIMIT = 1.7580993408473766
"""−(scale · α) of SELU, the value that alpha dropout sets (Klambauer et al. 2017, eq. 5)."""


def _alpha_drop(draw: Draw, tensor: Tensor) -> Tensor:
    """Dropped units take SELU's limit; an affine map keeps mean and variance (ibid.)."""
    rate = draw.rate or 0.0
    if rate >= 1.0:
        return torch.zeros_like(tensor)
    a = ((1 - rate) * (1 + rate * _SELU_LIMIT**2)) ** -0.5
    b = a * rate * _SELU_LIMIT

    def function(values: Tensor, kept: Tensor) -> Tensor:
        mixed: Tensor = values * (kept * a) + (kept - 1) * (a * _SELU_LIMIT) + b
        return mixed

    return draw.combine(tensor, lambda bits: keep(bits, rate).to(tensor.dtype), function)


def _dropout(
    kind: str,
    noise_shape: Callable[[Tensor], tuple[int, ...]],
    drop: Callable[[Draw, Tensor], Tensor],
    *,
    in_place: bool,
) -> Operator:
    def operator(source: Source, function: Operator, tensor: Tensor, p: float, train: bool) -> Any:
        if not train:
            return function(tensor, p, train)
        draw = source.draw(kind, p, noise_shape(tensor), tensor.device)
        if draw is None:
            return tensor if in_place else tensor.clone()
        dropped = drop(draw, tensor)
        return tensor.copy_(dropped) if in_place else dropped

    return operator


def _native_dropout(
    source: Source, function: Operator, tensor: Tensor, p: float, train: bool | None
) -> Any:
    if not train:
        return function(tensor, p, train)
    draw = source.draw("dropout", p, tensor.shape, tensor.device)
    if draw is None:
        return tensor.clone(), torch.ones_like(tensor, dtype=torch.bool)
    kept = draw.fill(tensor, lambda bits: keep(bits, draw.rate or 0.0).to(tensor.dtype))
    return draw.drop(tensor), kept.bool()


# --- attention -----------------------------------------------------------------------------------


def _by_query_head(tensor: Tensor, heads: int) -> Tensor:
    """Keys or values [..., H, S, E] repeated to one a query head, where groups of them share."""
    if tensor.dim() < 3 or tensor.size(-3) == heads:
        return tensor
    return tensor.repeat_interleave(heads // tensor.size(-3), -3)


def _scaled_product(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """scale · Q Kᵀ, [..., L, E] and [..., S, E] → [..., L, S]."""
    if query.shape[:-2] != key.shape[:-2] or query.dim() < 3:
        return (query * scale) @ key.mT
    # The product itself takes a factor; a tensor for the scaled queries is not needed. Heads that
    # lie beside each other it would first copy element by element.
    product = torch.baddbmm(
        query.new_empty(()),
        query.contiguous().flatten(0, -3),
        key.contiguous().flatten(0, -3).mT,
        beta=0,
        alpha=scale,
    )
    logits: Tensor = product.unflatten(0, query.shape[:-2])
    return logits


def attention_weights(
    query: Tensor,
    key: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """softmax(Q Kᵀ · scale + mask), the weights that attention drops from.

    Args:
        query: [..., H, L, E].
        key: [..., H, S, E], or fewer heads that groups of queries share.
        attn_mask: boolean (True may be seen) or added, broadcast to [..., H, L, S].
        is_causal: position i sees up to position i.
        scale: 1 / √E by default.

    Returns:
        [..., H, L, S]; zeros for a query that may see nothing, as from PyTorch's kernels.
    """
    key = _by_query_head(key, query.size(-3) if query.dim() > 2 else 1)
    logits = _scaled_product(query, key, query.size(-1) ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if attn_mask is None:
        return logits.softmax(-1)
    if attn_mask.dtype == torch.bool:
        logits = logits.masked_fill(~attn_mask, float("-inf"))
    else:
        logits = logits + attn_mask
    weights: Tensor = aten._safe_softmax.default(logits, -1)
    return weights


def attend(weights: Tensor, value: Tensor) -> Tensor:
    """Weights [..., H, L, S] over values [..., H, S, E], or fewer heads that groups share."""
    return weights @ _by_query_head(value, weights.size(-3) if weights.dim() > 2 else 1)


def _attention(
    source: Source,
    function: Operator,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`F.scaled_dot_product_attention` as its documentation spells it out, its mask handed in."""
    draw = None
    if dropout_p > 0.0:
        weights_shape = (*query.shape[:-1], key.shape[-2])
        draw = source.draw("attention", dropout_p, weights_shape, query.device)
    if draw is None:
        output: Tensor = function(
            query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa
        )
        return output
    weights = attention_weights(query, key, attn_mask, is_causal, scale)
    return attend(draw.drop(weights), value)


# --- recurrent layers ----------------------------------------------------------------------------


def _recurrent(kind: str, *, packed: bool) -> Operator:
    """One call a layer with dropout between; `nn.LSTM(dropout=p)` drops nowhere else."""

    def operator(source: Source, function: Operator, *arguments: Any) -> Any:
        if packed:
            data, sizes, state, weights, biases, layers, rate, train, bidirectional = arguments
            extra: tuple[Any, ...] = (sizes,)
            batch_first: tuple[bool, ...] = ()
        else:
            data, state, weights, biases, layers, rate, train, bidirectional, *rest = arguments
            extra, batch_first = (), tuple(rest)
        if not train or rate == 0.0:
            return function(*arguments)
        if layers == 1:
            source.draw(kind, rate, data.shape, data.device, live=False)
            return function(*arguments)
        directions = 2 if bidirectional else 1
        by_layer = len(weights) // layers
        states = state if isinstance(state, list | tuple) else [state]
        finals: list[list[Tensor]] = [[] for _ in states]
        for layer in range(layers):
            if layer > 0:
                draw = source.draw(kind, rate, data.shape, data.device)
                data = data if draw is None else draw.drop(data)
            own = slice(layer * directions, (layer + 1) * directions)
            own_states = [part[own] for part in states]
            data, *final = function(
                data,
                *extra,
                own_states if isinstance(state, list | tuple) else own_states[0],
                weights[layer * by_layer : (layer + 1) * by_layer],
                biases,
                1,
                0.0,
                False,
                bidirectional,
                *batch_first,
            )
            for collected, part in zip(finals, final, strict=True):
                collected.append(part)
        return data, *(torch.cat(parts) for parts in finals)

    return operator


# --- plain random numbers, which hand-written dropout is made of ---------------------------------


def _bernoulli(draw: Draw, like: Tensor, probability: Tensor | float) -> Tensor:
    template = torch.empty(like.shape, dtype=torch.float32, device=like.device)
    chances = draw.fill(template, lambda bits: uniform(bits, torch.float32))
    return (chances < probability).to(like.dtype)


def _bernoulli_of(
    source: Source, function: Operator, probabilities: Tensor, *, generator: Any = None
) -> Tensor:
    draw = source.draw("bernoulli", None, probabilities.shape, probabilities.device)
    if draw is None:
        return torch.ones_like(probabilities)
    return _bernoulli(draw, probabilities, probabilities)


def _bernoulli_with(
    source: Source, function: Operator, tensor: Tensor, p: Any = 0.5, *, generator: Any = None
) -> Tensor:
    # Rounded so that keeping 0.7 is shown as dropping 0.3, not 0.30000000000000004.
    rate = round(1.0 - p, 12) if isinstance(p, float) else None
    draw = source.draw("bernoulli", rate, tensor.shape, tensor.device)
    if draw is None:
        return torch.ones_like(tensor)
    return _bernoulli(draw, tensor, p if draw.rate is None else 1.0 - draw.rate)


def _in_place(operator: Operator) -> Operator:
    def write(source: Source, function: Operator, tensor: Tensor, *rest: Any, **named: Any) -> Any:
        return tensor.copy_(operator(source, function, tensor, *rest, **named))

    return write


def _numbers(
    kind: str, make: Callable[..., Tensor], *, sized: bool = False, quiet: float = 0.5
) -> Operator:
    """Random numbers of a shape; `quiet` stands for them while a probe switches the site off."""

    def operator(source: Source, function: Operator, first: Any, *rest: Any, **named: Any) -> Any:
        named.pop("generator", None)
        if sized:
            options = {k: v for k, v in named.items() if k in ("dtype", "device")}
            like = torch.empty(first, **options)
            arguments: tuple[Any, ...] = ()
        else:
            like = torch.empty_like(first, dtype=named.get("dtype"))
            arguments = (*rest, *(v for k, v in named.items() if k in _SHAPE_OF_DISTRIBUTION))
        draw = source.draw(kind, None, like.shape, like.device)
        if draw is None:
            return torch.full_like(like, quiet)
        return draw.fill(like, lambda bits: make(bits, like.dtype, *arguments))

    return operator


_SHAPE_OF_DISTRIBUTION = ("from", "to", "mean", "std", "lambd")


def _uniform_between(
    bits: Tensor, dtype: torch.dtype, low: float = 0.0, high: float = 1.0
) -> Tensor:
    return uniform(bits, dtype) * (high - low) + low


def _normal_about(bits: Tensor, dtype: torch.dtype, mean: float = 0.0, std: float = 1.0) -> Tensor:
    return normal(bits, dtype) * std + mean


def _exponential(bits: Tensor, dtype: torch.dtype, rate: float = 1.0) -> Tensor:
    return exponential(bits, dtype) / rate


def _table() -> dict[Any, Operator]:
    table: dict[Any, Operator] = {
        aten.native_dropout.default: _native_dropout,
        aten.scaled_dot_product_attention.default: _attention,
        aten.bernoulli.default: _bernoulli_of,
        aten.bernoulli.p: _bernoulli_with,
        aten.bernoulli_.float: _in_place(_bernoulli_with),
        aten.bernoulli_.Tensor: _in_place(_bernoulli_with),
        aten.rand.default: _numbers("rand", _uniform_between, sized=True),
        aten.rand_like.default: _numbers("rand", _uniform_between),
        aten.uniform_.default: _in_place(_numbers("rand", _uniform_between)),
        aten.randn.default: _numbers("randn", _normal_about, sized=True, quiet=0.0),
        aten.randn_like.default: _numbers("randn", _normal_about, quiet=0.0),
        aten.normal_.default: _in_place(_numbers("randn", _normal_about, quiet=0.0)),
        aten.exponential_.default: _in_place(_numbers("exponential", _exponential, quiet=1.0)),
    }
    drops: list[tuple[str, Callable[[Tensor], tuple[int, ...]], Callable[[Draw, Tensor], Tensor]]]
    drops = [
        ("dropout", _elements, Draw.drop),
        ("feature_dropout", _channels, Draw.drop),
        ("alpha_dropout", _elements, _alpha_drop),
        ("feature_alpha_dropout", _channels, _alpha_drop),
    ]
    for kind, shape, drop in drops:
        table[getattr(aten, kind).default] = _dropout(kind, shape, drop, in_place=False)
        table[getattr(aten, kind + "_").default] = _dropout(kind, shape, drop, in_place=True)
    for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
        table[getattr(aten, kind).input] = _recurrent(kind, packed=False)
        table[getattr(aten, kind).data] = _recurrent(kind, packed=True)
    return table


OPERATORS = _table()
"""ATen operation → the same operation from numbers that are handed in."""
