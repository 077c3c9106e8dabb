"""Small networks that drop in every way people write, each with the shape of its input row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Build = Callable[[], nn.Module]


class FunctionalDropout(nn.Module):
    """F.dropout in the forward, which no module shows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 32), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.dropout(torch.relu(self.first(x)), 0.3, self.training)
        output: Tensor = self.second(hidden)
        return output


class DropPath(nn.Module):
    """Stochastic depth as timm writes it."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(0.7)
        return x * kept / 0.7


class Residual(nn.Module):
    """A branch that is dropped as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.branch, self.drop, self.head = nn.Linear(6, 6), DropPath(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(x + self.drop(torch.relu(self.branch(x))))
        return output


class DropConnect(nn.Module):
    """Dropout on a weight: random numbers that have no rows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 32), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        weight = F.dropout(self.first.weight, 0.4, self.training)
        output: Tensor = self.second(torch.relu(F.linear(x, weight, self.first.bias)))
        return output


class LockedDropout(nn.Module):
    """Variational dropout: one mask over all time steps."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(6, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.rnn(x)[0]
        if self.training:
            kept = hidden.new_full((hidden.shape[0], 1, hidden.shape[2]), 0.7)
            hidden = hidden * torch.bernoulli(kept) / 0.7
        output: Tensor = self.head(hidden[:, -1])
        return output


class Recurrent(nn.Module):
    """Stacked recurrent layers with dropout between."""

    def __init__(
        self,
        kind: Callable[..., nn.RNNBase] = nn.LSTM,
        layers: int = 2,
        *,
        batch_first: bool = True,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        self.rnn = kind(
            6, 16, layers, dropout=0.4, batch_first=batch_first, bidirectional=bidirectional
        )
        self.head = nn.Linear(32 if bidirectional else 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.rnn.batch_first else x.transpose(0, 1)
        hidden = self.rnn(x)[0]
        last = hidden[:, -1] if self.rnn.batch_first else hidden[-1]
        output: Tensor = self.head(last)
        return output


class RecurrentDropout(nn.Module):
    """Recurrent dropout (Gal & Ghahramani 2016b): one mask on the state, at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(6, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(x.shape[0], 16)
        mask = F.dropout(torch.ones_like(state), 0.3, self.training)
        for step in x.unbind(1):
            state = self.cell(step, state * mask)
        output: Tensor = self.head(state)
        return output


class ConcreteDropout(nn.Module):
    """Gal, Hron & Kendall 2017: a relaxed mask from uniform noise, its rate a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 3)
        self.rate_logit = nn.Parameter(torch.tensor(-1.0))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.first(x))
        if self.training:
            rate, noise = self.rate_logit.sigmoid(), torch.rand_like(hidden)
            noise = noise.clamp(1e-6, 1 - 1e-6)
            logit = rate.logit() + noise.logit()
            hidden = hidden * (1 - (logit / 0.1).sigmoid()) / (1 - rate)
        output: Tensor = self.second(hidden)
        return output


class EmbeddingDropout(nn.Module):
    """Drops whole rows of the embedding (Merity et al. 2018): a word is gone everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(8, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.embedding.weight
        if self.training:
            weight = weight * F.dropout(weight.new_ones(len(weight), 1), 0.3)
        words = (x * 3).abs().long() % 8
        output: Tensor = self.head(F.embedding(words, weight).mean(1))
        return output


class HuggingFace(nn.Module):
    """A BERT built from a configuration, on embeddings of its own."""

    def __init__(self, attention: str) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        options: dict[str, Any] = {"attn_implementation": attention}
        configuration = BertConfig(
            vocab_size=8,
            hidden_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
            hidden_dropout_prob=0.1,
            attention_probs_dropout_prob=0.2,
            **options,
        )
        self.bert, self.head = BertModel(configuration), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.bert(inputs_embeds=x).last_hidden_state[:, 0])
        return output


class PackedRecurrent(nn.Module):
    """Sequences of lengths that depend on the data, packed."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(6, 16, 2, dropout=0.4, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        lengths = (x[:, :, 0].abs().sum(1) * 10).long() % 4 + 1
        packed = nn.utils.rnn.pack_padded_sequence(
            x, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        output: Tensor = self.head(self.rnn(packed)[1][0][-1])
        return output


class Encoder(nn.Module):
    """nn.TransformerEncoder, which has a fused path for eval mode."""

    def __init__(
        self, *, batch_first: bool = True, padded: bool = False, causal: bool = False
    ) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, 0.2, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)
        self.batch_first, self.padded, self.causal = batch_first, padded, causal

    def forward(self, x: Tensor) -> Tensor:
        padding = None
        if self.padded:
            padding = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
            padding[:, -1] = True
        x = x if self.batch_first else x.transpose(0, 1)
        mask = None
        if self.causal:
            square = x.shape[1], x.shape[1]
            mask = torch.ones(square, dtype=torch.bool, device=x.device).triu(1)
        hidden = self.encoder(x, mask, padding)
        output: Tensor = self.head(hidden.mean(1 if self.batch_first else 0))
        return output


class EncoderDecoder(nn.Module):
    """nn.Transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = nn.Transformer(8, 2, 1, 1, 16, 0.2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.transformer(x, x).mean(1))
        return output


class Attention(nn.Module):
    """nn.MultiheadAttention, by its two ways of computing."""

    def __init__(self, *, need_weights: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, 0.3, batch_first=True)
        self.head = nn.Linear(8, 3)
        self.need_weights = need_weights

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.attention(x, x, x, need_weights=self.need_weights)[0]
        output: Tensor = self.head(mixed.mean(1))
        return output


class Branching(nn.Module):
    """Drops more where the input says so: control flow that depends on data."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 32), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.first(x))
        if x.sum() > 0:
            hidden = F.dropout(hidden, 0.5, self.training)
        output: Tensor = self.second(F.dropout(hidden, 0.2, self.training))
        return output


def segmentation() -> nn.Module:
    """Logits of three classes for every pixel."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Dropout2d(0.3), nn.Conv2d(6, 3, 1)
    )


def tagging() -> nn.Module:
    """Four outputs for every step of a signal."""
    return nn.Sequential(
        nn.Conv1d(1, 6, 3, padding=1), nn.ReLU(), nn.Dropout(0.3), nn.Conv1d(6, 4, 1)
    )


def mlp() -> nn.Module:
    """Dropout on the input and on a hidden layer, at two rates."""
    return nn.Sequential(
        nn.Dropout(0.1), nn.Linear(6, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 3)
    )


def in_place() -> nn.Module:
    """Dropout that writes into its input."""
    return nn.Sequential(
        nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Dropout(0.4, inplace=True), nn.Linear(8, 3)
    )


def alpha() -> nn.Module:
    """Alpha dropout."""
    return nn.Sequential(nn.Linear(6, 32), nn.SELU(), nn.AlphaDropout(0.3), nn.Linear(32, 3))


def feature_alpha() -> nn.Module:
    """Alpha dropout of whole channels."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.SELU(), nn.FeatureAlphaDropout(0.3), nn.Flatten(), nn.Linear(64, 3)
    )


def spatial_1d() -> nn.Module:
    """Dropout of whole channels of a signal."""
    return nn.Sequential(nn.Conv1d(1, 4, 3), nn.Dropout1d(0.3), nn.Flatten(), nn.Linear(16, 3))


def spatial_2d() -> nn.Module:
    """Dropout of whole channels of an image."""
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Dropout2d(0.3), nn.Flatten(), nn.Linear(64, 3))


def spatial_3d() -> nn.Module:
    """Dropout of whole channels of a volume."""
    return nn.Sequential(nn.Conv3d(1, 4, 3), nn.Dropout3d(0.3), nn.Flatten(), nn.Linear(32, 3))


NETWORKS: dict[str, tuple[Build, tuple[int, ...]]] = {
    "mlp": (mlp, (6,)),
    "in_place": (in_place, (6,)),
    "alpha": (alpha, (6,)),
    "feature_alpha": (feature_alpha, (1, 6, 6)),
    "spatial_1d": (spatial_1d, (1, 6)),
    "spatial_2d": (spatial_2d, (1, 6, 6)),
    "spatial_3d": (spatial_3d, (1, 4, 4, 4)),
    "segmentation": (segmentation, (1, 6, 5)),
    "tagging": (tagging, (1, 7)),
    "functional": (FunctionalDropout, (6,)),
    "drop_path": (Residual, (6,)),
    "drop_connect": (DropConnect, (6,)),
    "locked": (LockedDropout, (5, 6)),
    "lstm": (Recurrent, (5, 6)),
    "lstm_3_bidirectional": (lambda: Recurrent(layers=3, bidirectional=True), (5, 6)),
    "gru_time_first": (lambda: Recurrent(nn.GRU, batch_first=False), (5, 6)),
    "rnn": (lambda: Recurrent(nn.RNN), (5, 6)),
    "recurrent": (RecurrentDropout, (5, 6)),
    "concrete": (ConcreteDropout, (6,)),
    "embedding": (EmbeddingDropout, (5,)),
    "hugging_face_sdpa": (lambda: HuggingFace("sdpa"), (5, 8)),
    "hugging_face_eager": (lambda: HuggingFace("eager"), (5, 8)),
    "lstm_packed": (PackedRecurrent, (5, 6)),
    "encoder": (Encoder, (5, 8)),
    "encoder_time_first": (lambda: Encoder(batch_first=False), (5, 8)),
    "encoder_padded": (lambda: Encoder(padded=True), (5, 8)),
    "encoder_causal": (lambda: Encoder(causal=True), (5, 8)),
    "encoder_decoder": (EncoderDecoder, (5, 8)),
    "attention": (lambda: Attention(need_weights=False), (5, 8)),
    "attention_with_weights": (lambda: Attention(need_weights=True), (5, 8)),
}
"""All but `Branching`, which no plain batch can be a reference for."""


def build(name: str, seed: int = 0) -> nn.Module:
    """The network of that name in eval mode, its weights from `seed`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return NETWORKS[name][0]().eval()


def example(name: str) -> Callable[[int], Tensor]:
    """Standard normal inputs [B, D...] for a B."""
    shape = NETWORKS[name][1]
    return lambda rows: torch.randn(rows, *shape, generator=torch.Generator().manual_seed(1))
