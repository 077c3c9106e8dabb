"""The parts of a sampling program that drop: what stands in its graph in place of the sites.

Stochastic tensors are [.., L · B · k, ..] in their batch dimension (see `noise.Layout`);
deterministic ones, from before the first site, [.., B · k, ..].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from service.inference.draws import Draw
from service.inference.noise import Noise
from service.inference.operators import OPERATORS

_FUSED = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")

FUSIBLE: dict[Any, str] = {
    torch.ops.aten.relu.default: "relu",
    torch.ops.aten.gelu.default: "gelu",
}
"""Element-wise operations that oneDNN applies while it multiplies, and its names for them."""


class Linear(nn.Module):
    """A linear layer and the activation behind it, as one oneDNN call on a CPU.

    Args:
        weight: [out, in].
        bias: [out].
        activation: the operation behind it, one of `FUSIBLE`.
        approximate: of GELU.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        activation: Any = None,
        approximate: str = "none",
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self._activation = FUSIBLE.get(activation, "none")
        self._approximate = approximate

    def extra_repr(self) -> str:
        return f"{list(self.weight.shape)}, {self._activation}"

    @property
    def is_linear(self) -> bool:
        """Whether no activation follows in it."""
        return self._activation == "none"

    def scale(self, factor: float, *, with_bias: bool) -> None:
        """Multiply its output, or without the bias its input, by a number."""
        self.weight = nn.Parameter(self.weight * factor, requires_grad=False)
        if self.bias is not None and with_bias:
            self.bias = nn.Parameter(self.bias * factor, requires_grad=False)

    def forward(self, tensor: Tensor) -> Tensor:
        """[.., in] → [.., out]."""
        # nn.MultiheadAttention puts time before the batch; a layer that acts on the last dimension
        # can as well run on the order in memory, without the copy that PyTorch would make.
        if tensor.dim() == 3 and tensor.transpose(0, 1).is_contiguous():
            return self._on_rows(tensor.transpose(0, 1)).transpose(0, 1)
        return self._on_rows(tensor.contiguous())

    def _on_rows(self, tensor: Tensor) -> Tensor:
        if _FUSED and tensor.device.type == "cpu" and tensor.dtype != torch.float64:
            fused: Tensor = torch.ops.mkldnn._linear_pointwise(
                tensor, self.weight, self.bias, self._activation, [], self._approximate
            )
            return fused
        plain = functional.linear(tensor, self.weight, self.bias)
        if self._activation == "relu":
            return plain.relu_()
        if self._activation == "gelu":
            return functional.gelu(plain, approximate=self._approximate)
        return plain


class Spread(nn.Module):
    """Repeats a deterministic tensor for every lane."""

    def __init__(self, batch_dim: int) -> None:
        super().__init__()
        self._batch_dim = batch_dim

    def forward(self, tensor: Tensor, noise: Noise) -> Tensor:
        """[.., B · k, ..] → [.., L · B · k, ..]."""
        dim = self._batch_dim
        # Contiguous also where it is one row, which flattening would leave a view of.
        return noise.layout.spread(tensor, dim).flatten(dim, dim + 2).contiguous()


class Drop(nn.Module):
    """Multiplies with 0 or 1 / (1 − rate), each element or each channel.

    Where a linear layer beside it has taken the 1 / (1 − rate) into its weights, it only clears the
    bits of what is dropped.

    Args:
        site: its number.
        rate: of dropping.
        batch_dim: of its tensor.
        by_channel: one decision for all that follows the second dimension.
    """

    def __init__(
        self,
        site: int,
        rate: float,
        batch_dim: int,
        *,
        by_channel: bool = False,
    ) -> None:
        super().__init__()
        self.site = site
        self.rate = rate
        self.batch_dim = batch_dim
        self.by_channel = by_channel
        # Both are found once the whole graph is known.
        self.from_deterministic = False
        self.in_place = False
        self.scaled_elsewhere = False

    def extra_repr(self) -> str:
        return f"site {self.site}, rate {self.rate}"

    def forward(self, tensor: Tensor, noise: Noise, residual: Tensor | None = None) -> Tensor:
        """Drop from `tensor`; with a `residual`, of the result's shape, add that."""
        dim, layout, dtype = self.batch_dim, noise.layout, tensor.dtype
        shape = list(tensor.shape)
        if self.by_channel:
            shape[2:] = [1] * (len(shape) - 2)
        shape[dim] //= layout.rows * (layout.groups if self.from_deterministic else layout.lanes)
        factors = self._factors(noise, shape, tensor)
        if self.scaled_elsewhere:
            tensor = tensor.view(torch.int16)
        if self.from_deterministic:
            # [.., G, T, B, k, ..]
            split = layout.spread(tensor, dim).unflatten(dim + 2, (layout.rows, -1))
            factors = factors.unflatten(dim, (layout.groups, layout.passes))
        else:
            split = tensor.unflatten(dim, (layout.lanes, layout.rows, -1))
        last = dim + (3 if self.from_deterministic else 2)
        in_place = self.in_place and not self.from_deterministic
        if self.scaled_elsewhere:
            bits = split.bitwise_and_(factors) if in_place else split & factors
            dropped = bits.view(dtype)
        else:
            dropped = split.mul_(factors) if in_place else split * factors
        if residual is not None:
            dropped.add_(residual.unflatten(dim, dropped.shape[dim : last + 1]))
        flat: Tensor = dropped.flatten(dim, last)
        return flat

    def _factors(self, noise: Noise, shape: Sequence[int], like: Tensor) -> Tensor:
        where = (self.site, self.rate, shape, self.batch_dim)
        if self.scaled_elsewhere:
            return noise.masks(*where, like.device)
        return noise.factors(*where, like.dtype, like.device)


@dataclass(frozen=True, slots=True)
class _OneSite:
    """Hands one operation its numbers."""

    noise: Noise
    site: int
    batch_dim: int

    def draw(
        self,
        kind: str,
        rate: float | None,
        shape: Sequence[int],
        device: torch.device,
        *,
        live: bool = True,
    ) -> Draw | None:
        return self.noise.draw(self.site, rate, shape, self.batch_dim, device)


class Redone(nn.Module):
    """Any other operation of `OPERATORS`, from the numbers of its site."""

    def __init__(self, operation: Any, site: int, batch_dim: int) -> None:
        super().__init__()
        self._operation = operation
        self.site = site
        self._batch_dim = batch_dim

    def forward(self, noise: Noise, *arguments: Any, **named: Any) -> Any:
        """The operation with its own arguments, tensors with lanes."""
        source = _OneSite(noise, self.site, self._batch_dim)
        return OPERATORS[self._operation](source, self._operation, *arguments, **named)


class ChannelProducts(nn.Module):
    """What each channel adds to a linear layer that reads all of them flattened.

    W x = Σ_c W_c x_c, so that dropping a channel leaves out one summand: T passes need these
    products only once.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, tensor: Tensor) -> Tensor:
        """[B, C, ...] → [C, B, F]."""
        rows, channels = tensor.shape[:2]
        by_channel = tensor.reshape(rows, channels, -1).transpose(0, 1)
        weights = self.weight.view(len(self.weight), channels, -1).permute(1, 2, 0)
        return torch.bmm(by_channel, weights)


class ChannelMix(nn.Module):
    """Adds up the channels' products that a pass does not drop."""

    def __init__(self, drop: Drop, bias: Tensor | None) -> None:
        super().__init__()
        self.site = drop.site
        self._rate = drop.rate
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, products: Tensor, noise: Noise) -> Tensor:
        """[C, G · B, F] → [L · B, F]."""
        channels, _, features = products.shape
        layout = noise.layout
        factors = noise.factors(
            self.site, self._rate, (1, channels), 0, products.dtype, products.device
        )  # [L, R, 1, C]
        by_group = products.view(channels, layout.groups, layout.rows, features)
        mixed = []
        for group, own in enumerate(by_group.unbind(1)):
            start = group * layout.passes
            of_group = factors[start : start + layout.passes, :, 0]  # [T, R, C]
            if of_group.shape[1] == 1:
                sums = of_group[:, 0] @ own.reshape(channels, -1)
            else:
                sums = torch.einsum("tbc,cbf->tbf", of_group, own)
            mixed.append(sums.reshape(layout.passes * layout.rows, features))
        sums = torch.cat(mixed) if len(mixed) > 1 else mixed[0]
        return sums if self.bias is None else sums.add_(self.bias)


@dataclass(frozen=True, slots=True)
class Link:
    """A site, the linear layer behind it and the element-wise operations behind that.

    Args:
        drop: of [.., F].
        activations: aten operations with their further arguments.
    """

    drop: Drop
    activations: tuple[tuple[Any, tuple[Any, ...]], ...]


def activate(tensor: Tensor, activations: Sequence[tuple[Any, tuple[Any, ...]]]) -> Tensor:
    """Element-wise operations one after the other."""
    for function, rest in activations:
        tensor = function(tensor, *rest)
    return tensor


class Chain(nn.Module):
    """Dropout and linear layers in turn, [B, F] throughout: where a pass can be a thinner network.

    With shared masks a pass uses only the units that it keeps, the same for every row: its weights,
    gathered once, make products of a fraction of the size.

    Args:
        links: in order.
        weights: of each link, [out, in].
        biases: of each link.
    """

    def __init__(
        self, links: Sequence[Link], weights: Sequence[Tensor], biases: Sequence[Tensor | None]
    ) -> None:
        super().__init__()
        self.links = tuple(links)
        self.weights = nn.ParameterList([nn.Parameter(w, requires_grad=False) for w in weights])
        self.biases = nn.ParameterList(
            [
                nn.Parameter(torch.zeros(len(w)) if b is None else b, requires_grad=False)
                for w, b in zip(weights, biases, strict=True)
            ]
        )
        self.thinned_from_rows: int | None = None

    def extra_repr(self) -> str:
        return f"sites {[link.drop.site for link in self.links]}"

    def forward(self, tensor: Tensor, noise: Noise) -> Tensor:
        """[B, F] or [L · B, F] → [L · B, F′]."""
        if self.thinned_from_rows is not None and noise.rows >= self.thinned_from_rows:
            key = ("thinned", self.links[0].drop.site, tensor.dtype, tensor.device)
            thinned = noise.lasting_part(
                key,
                self._thinned_numbers() * tensor.itemsize,
                lambda passes: self._thin(noise, passes, tensor),
            )
            if thinned is not None:
                return self._thinned(tensor, noise, thinned)
        for link, weight, bias in zip(self.links, self.weights, self.biases, strict=True):
            tensor = functional.linear(link.drop(tensor, noise), weight, bias)
            tensor = activate(tensor, link.activations)
        return tensor

    @property
    def size(self) -> int:
        """How many weights it has."""
        return sum(weight.numel() for weight in self.weights)

    def take_scales(self) -> None:
        """Scale the weights once instead of what they multiply in every pass."""
        for number, link in enumerate(self.links):
            if link.drop.rate < 1.0:
                scaled = self.weights[number] / (1.0 - link.drop.rate)
                self.weights[number] = nn.Parameter(scaled, requires_grad=False)
                link.drop.scaled_elsewhere = True

    def _thinned_numbers(self) -> int:
        """About how many weights a thinned pass has."""
        kept = [1.0 - link.drop.rate for link in self.links] + [1.0]
        sizes = [w.numel() * a * b for w, a, b in zip(self.weights, kept, kept[1:], strict=False)]
        whole: int = round(sum(sizes))
        return whole

    def _thin(self, noise: Noise, passes: range, like: Tensor) -> tuple[Tensor, ...]:
        """Units kept before the first layer [T, K], then each layer's weight [T, K, K′] and bias.

        Passes are padded to the largest K with weights of zero.
        """
        kept = [self._kept_units(noise, passes, number) for number in range(len(self.links))]
        prepared: list[Tensor] = [kept[0][0]]
        for number, link in enumerate(self.links):
            units, used = kept[number]
            scale = 1.0 if link.drop.scaled_elsewhere else 1.0 / (1.0 - link.drop.rate)
            weight = self.weights[number].float().t() * scale  # [in, out]
            rows = weight[units] * used[..., None]  # [T, K, out]
            bias = self.biases[number].float().expand(len(passes), 1, -1)
            if number + 1 < len(self.links):
                following = kept[number + 1][0]
                rows = rows.gather(2, following[:, None].expand(-1, rows.shape[1], -1))
                bias = bias.gather(2, following[:, None])
            prepared += [rows.to(like.dtype), bias.to(like.dtype).contiguous()]
        return tuple(prepared)

    def _kept_units(self, noise: Noise, passes: range, number: int) -> tuple[Tensor, Tensor]:
        """Indices [T, K] of the units that each pass keeps, and which of them are not padding."""
        weight, drop = self.weights[number], self.links[number].drop
        whole = Noise(noise.banks, passes, 1, until=len(passes))
        factors = whole.factors(
            drop.site, drop.rate, (1, weight.shape[1]), 0, torch.float32, weight.device
        )
        keeps = factors[:, 0, 0] > 0  # [T, F]
        # Whole registers: matrix units work in blocks of 16.
        most = min(-(-int(keeps.sum(1).max()) // 16) * 16, keeps.shape[1])
        order = keeps.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
        return order, keeps.gather(1, order)

    def _thinned(self, tensor: Tensor, noise: Noise, prepared: Sequence[Tensor]) -> Tensor:
        layout = noise.layout
        own = slice(noise.passes.start, noise.passes.stop)
        units = prepared[0][own]
        passes, kept = units.shape
        if self.links[0].drop.from_deterministic:
            columns = tensor.t().contiguous().index_select(0, units.reshape(-1))
            hidden = columns.view(passes, kept, layout.rows).transpose(1, 2)
        else:
            by_pass = tensor.view(passes, layout.rows, -1)
            hidden = by_pass.gather(2, units[:, None].expand(-1, layout.rows, -1))
        for number, link in enumerate(self.links):
            weight, bias = prepared[1 + 2 * number][own], prepared[2 + 2 * number][own]
            hidden = activate(torch.baddbmm(bias, hidden, weight), link.activations)
        return hidden.flatten(0, 1)
