"""Last-layer Laplace: a version whose members are draws of a fitted Gaussian posterior.

Daxberger et al., "Laplace redux – effortless Bayesian deep learning" (2021), as laplace-torch has
it: the trained last layer is the mode, the inverse of the generalised Gauss–Newton matrix of the
training data plus the prior's precision the covariance. What stands before the last layer stays as
it was trained, so that every draw is a network of the same architecture: a member.

A regression's noise is that of the largest marginal likelihood, and so is the prior's precision,
unless there are rows held out to choose it by the likelihood of what the draws predict. For a
classification that fits its training rows nearly perfectly they are needed: its curvature is then
almost zero, the posterior almost the prior, and draws of it predict far worse than the network
(Lawrence 2001, section 5.4; Immer, Korzepa and Bauer, "Improving predictions of Bayesian neural
nets via local linearization", 2021; a last layer is linear, so linearising it changes nothing).
Hence the likelihood of both is returned, to be looked at.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from service.assessment.data import Labelled, read_labelled
from service.errors import CandorError, InvalidInput, ModelBroken
from service.inference.outputs import check_outputs
from service.registry import repository
from service.registry.loading import build_network, read_weights
from service.registry.manifest import Manifest, read_manifest
from service.registry.members import member_files
from service.registry.repository import NOTE
from service.types import Task

LIKELIHOODS = {Task.CLASSIFICATION: "classification", Task.REGRESSION: "regression"}
"""laplace-torch's name of each task that it has a likelihood for."""

_MOST_FULL = 2000
"""Parameters of the last layer up to which the whole matrix is kept; above it a Kronecker product
of two, which leaves out correlations between what goes in and what comes out."""

_ROWS_AT_ONCE = 256
_STEPS = 200
_LEARNING_RATE = 0.1
_PRECISIONS = torch.logspace(-2, 6, 33)
"""That are tried on rows held out."""

_LIBRARIES = ("laplace-torch", "torch", "numpy")


@dataclass(frozen=True, slots=True)
class Fitted:
    """A Gaussian posterior of a last layer.

    Args:
        layer: its path in the network.
        structure: of its covariance's inverse, `full` or `kron`.
        prior_precision: of its weights.
        noise_std: of a regression, in the target's units; 1 of a classification.
        log_marginal_likelihood: of the training data at that precision, in nats.
        network_nll: mean negative log-likelihood of what the network predicts, of the rows held
            out or, without such, of the training rows; nats a row.
        draws_nll: of what the draws predict as one.
        draws: [M, parameters].
    """

    layer: str
    structure: str
    prior_precision: float
    noise_std: float
    log_marginal_likelihood: float
    network_nll: float
    draws_nll: float
    draws: Tensor


def add_laplace_version(
    folder: Path,
    data: Path,
    *,
    version: int | None = None,
    members: int = 20,
    seed: int = 0,
    dropout: bool = False,
    held_out: Path | None = None,
) -> tuple[int, Fitted]:
    """Fit the posterior of a version's last layer and write draws of it as a new version.

    Args:
        folder: of the model.
        data: .npz of the rows that it was trained on, x [N, D...] and y.
        version: to start from; the highest by default.
        members: draws.
        seed: of the draws.
        dropout: whether what drops out in the network drops in the members, too.
        held_out: .npz of rows that it was not trained on, to choose the prior's precision by.

    Returns:
        The number of the new version, which appears at once or not at all, and what was fitted.

    Raises:
        InvalidInput: the data are not what the model takes.
        CalibrationFailed: y is not what it predicts.
        ModelBroken: the version cannot be read, or laplace-torch has nothing for it.
    """
    if members < 2:
        raise InvalidInput(
            f"{members} members say nothing about doubt; at least 2", field="members"
        )
    manifest = read_manifest(folder)
    numbers = repository.versions(folder)
    number = max(numbers) if version is None else version
    [file, *others] = member_files(folder / str(number))
    if others or file.suffix != ".safetensors":
        raise ModelBroken(
            f"{file.parent} holds {'members' if others else file.name}; a posterior is fitted "
            f"around one network: name a version with {repository.WEIGHTS} by --version"
        )
    network = build_network(folder, manifest)
    read_weights(network, file)
    network.eval()
    train = read_labelled(data, manifest)
    judge = None if held_out is None else read_labelled(held_out, manifest)
    x, y = _tensors(train, manifest)
    other = None if judge is None else _tensors(judge, manifest)
    fitted = fit(network, x, y, manifest, members=members, seed=seed, held_out=other)
    note = {
        "dropout": dropout,
        "origin": {
            "method": "last-layer Laplace",
            "version": number,
            "weights_digest": repository.weights_digest(folder, number, manifest),
            "data": data.name,
            "data_sha256": train.sha256,
            "rows": len(x),
            "held_out": None if held_out is None else held_out.name,
            "held_out_sha256": None if judge is None else judge.sha256,
            "seed": seed,
            "layer": fitted.layer,
            "structure": fitted.structure,
            "prior_precision": fitted.prior_precision,
            "noise_std": fitted.noise_std,
            "log_marginal_likelihood": fitted.log_marginal_likelihood,
            "network_nll": fitted.network_nll,
            "draws_nll": fitted.draws_nll,
            "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }
    new = max(numbers) + 1
    _write(folder / str(new), network, fitted, note)
    return new, fitted


def fit(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    manifest: Manifest,
    *,
    members: int,
    seed: int,
    held_out: tuple[Tensor, Tensor] | None = None,
) -> Fitted:
    """The posterior of a network's last layer, and draws of it.

    Args:
        network: in eval mode.
        x: [N, D...].
        y: classes [N], or values [N, C] of a regression.
        manifest: of the model.
        members: draws.
        seed: of the draws.
        held_out: x and y of rows to choose the prior's precision by.

    Raises:
        InvalidInput: y does not suit the network.
        ModelBroken: laplace-torch has nothing for this task or this network.
    """
    if manifest.task not in LIKELIHOODS:
        known = " and ".join(LIKELIHOODS)
        raise ModelBroken(
            f"laplace-torch has likelihoods for {known}, and none for {manifest.task}"
        )
    with torch.no_grad():
        outputs: Tensor = network(x[:2])
    check_outputs(manifest.task, outputs, len(x[:2]), manifest.labels)
    if outputs.dim() != 2:
        raise ModelBroken(
            f"the network returns {list(outputs.shape)} for two rows; a last-layer posterior needs "
            "one vector a row, [B, C]"
        )
    judged_x, judged_y = held_out or (x, y)
    for targets in (y, judged_y):
        _check_targets(targets, outputs.shape[1], manifest.task)
    with _laplace() as laplace:
        layer = _last_layer(laplace, network, x[:2])
        size = sum(p.numel() for p in network.get_submodule(layer).parameters())
        structure = "full" if size <= _MOST_FULL else "kron"
        posterior = laplace.Laplace(
            network,
            LIKELIHOODS[manifest.task],
            subset_of_weights="last_layer",
            hessian_structure=structure,
            last_layer_name=layer,
        )
        posterior.fit(DataLoader(TensorDataset(x, y), batch_size=_ROWS_AT_ONCE))
        _maximise_evidence(posterior, manifest.task)
        features = _features(posterior.model, judged_x)
        linear = network.get_submodule(layer)

        def drawn() -> Tensor:
            draws: Tensor = posterior.sample(members, torch.Generator().manual_seed(seed))
            return draws.detach()

        def nll(parameters_MP: Tensor) -> float:
            values_MBC = _linear(linear, parameters_MP, features)
            noise = float(posterior.sigma_noise)
            return _negative_log_likelihood(values_MBC, judged_y, manifest.task, noise)

        if held_out is not None:
            tried: list[tuple[float, float]] = []
            for precision in _PRECISIONS.tolist():
                posterior.prior_precision = precision
                tried.append((nll(drawn()), precision))
            posterior.prior_precision = min(tried)[1]
        draws = drawn()
        mode = nn.utils.parameters_to_vector(linear.parameters()).detach()
    if not draws.isfinite().all():
        raise ModelBroken(
            "the posterior's draws are not finite; are there rows enough in the data?"
        )
    return Fitted(
        layer,
        structure,
        float(posterior.prior_precision.mean()),
        float(posterior.sigma_noise),
        float(posterior.log_marginal_likelihood()),
        nll(mode[None]),
        nll(draws),
        draws,
    )


def _features(extractor: Any, x: Tensor) -> Tensor:
    """What goes into the last layer, [N, F]."""
    with torch.no_grad():
        parts = [extractor.forward_with_features(part)[1] for part in x.split(_ROWS_AT_ONCE)]
    return torch.cat(parts)


def _linear(layer: nn.Module, parameters_MP: Tensor, features_BF: Tensor) -> Tensor:
    """Outputs [M, B, C] of a linear layer with each of several sets of parameters."""
    width = features_BF.shape[1]
    size = layer.get_parameter("weight").numel()
    weights_MCF = parameters_MP[:, :size].unflatten(1, (-1, width))
    biases_MC = parameters_MP[:, size:]
    outputs_MBC: Tensor = features_BF @ weights_MCF.mT
    if biases_MC.numel():
        outputs_MBC = outputs_MBC + biases_MC[:, None]
    return outputs_MBC


def _negative_log_likelihood(values_MBC: Tensor, y: Tensor, task: Task, noise: float) -> float:
    """Of the mixture over members, mean of the rows, in nats; a regression's as one Gaussian."""
    if task is Task.CLASSIFICATION:
        log_probs = values_MBC.double().log_softmax(dim=-1).logsumexp(dim=0)
        return float(nn.functional.nll_loss(log_probs - math.log(len(values_MBC)), y))
    mean_BC, variance_BC = values_MBC.mean(dim=0), values_MBC.var(dim=0, correction=0) + noise**2
    rows = nn.functional.gaussian_nll_loss(mean_BC, y, variance_BC, full=True, reduction="none")
    return float(rows.sum(dim=1).mean())


@contextmanager
def _laplace() -> Iterator[Any]:
    """laplace-torch, without its dependencies' warnings of deprecations that nobody here can heed.

    Raises:
        ModelBroken: it is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            import laplace
        except ModuleNotFoundError as error:
            raise ModelBroken(
                f"laplace-torch cannot be imported ({error}); install it: pip install "
                "'candor[laplace]'"
            ) from error
        yield laplace


def _last_layer(laplace: Any, network: nn.Module, x: Tensor) -> str:
    """The path of the linear layer whose outputs are the network's own."""
    try:
        extractor = laplace.utils.FeatureExtractor(network)
        with torch.no_grad():
            outputs, features = extractor.forward_with_features(x)
    except ValueError as error:
        raise ModelBroken(f"laplace-torch finds no last layer: {error}") from error
    path: str = extractor._last_layer_name
    layer = network.get_submodule(path)
    own = {id(parameter) for parameter in layer.parameters()}
    shared = any(
        id(parameter) in own
        for module in network.modules()
        if module is not layer
        for parameter in module._parameters.values()
    )
    with torch.no_grad():
        same = torch.allclose(layer(features), outputs, rtol=1e-5, atol=1e-6)
    if shared or not same:
        why = "shares its weights with another" if shared else "is not what the network returns"
        raise ModelBroken(f"{path} is the last layer to run and {why}; no posterior fits it")
    return path


def _maximise_evidence(posterior: Any, task: Task) -> None:
    """Set the prior's precision, and a regression's noise, by the marginal likelihood."""
    log_precision = torch.zeros(1, requires_grad=True)
    log_noise = torch.zeros(1, requires_grad=task is Task.REGRESSION)
    free = [log_precision, log_noise] if task is Task.REGRESSION else [log_precision]
    optimiser = torch.optim.Adam(free, lr=_LEARNING_RATE)

    def evidence() -> Tensor:
        noise = log_noise.exp() if task is Task.REGRESSION else None
        value: Tensor = posterior.log_marginal_likelihood(log_precision.exp(), noise)
        return value

    for _ in range(_STEPS):
        optimiser.zero_grad()
        (-evidence()).backward()
        optimiser.step()
    posterior.prior_precision = log_precision.detach().exp()
    if task is Task.REGRESSION:
        posterior.sigma_noise = log_noise.detach().exp()


def _write(target: Path, network: nn.Module, fitted: Fitted, note: dict[str, Any]) -> None:
    """Write the members into a folder that appears under its name when it is complete."""
    layer = network.get_submodule(fitted.layer)
    try:
        unfinished = Path(tempfile.mkdtemp(prefix=".laplace-", dir=target.parent))
        try:
            for member, draw in enumerate(fitted.draws):
                _fill(layer, draw)
                file = unfinished / f"weights-{member + 1}.safetensors"
                safetensors.torch.save_model(network, str(file))
                file.chmod(0o644)
            (unfinished / NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
            unfinished.chmod(0o755)
            os.rename(unfinished, target)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    except OSError as error:
        raise CandorError(f"{target} cannot be written: {error}") from error


def _fill(layer: nn.Module, draw: Tensor) -> None:
    """Set a layer's parameters, each in storage of its own, which a file of weights needs."""
    start = 0
    with torch.no_grad():
        for parameter in layer.parameters():
            part = draw[start : start + parameter.numel()]
            parameter.copy_(part.view_as(parameter))
            start += parameter.numel()


def _tensors(labelled: Labelled, manifest: Manifest) -> tuple[Tensor, Tensor]:
    """x [N, D...] and y, classes [N] or values [N, C], as the likelihood takes them."""
    kind = np.int64 if manifest.task is Task.CLASSIFICATION else np.float32
    return torch.from_numpy(labelled.inputs), torch.from_numpy(labelled.targets.astype(kind))


def _check_targets(y: Tensor, width: int, task: Task) -> None:
    if task is Task.CLASSIFICATION:
        wrong, expected = bool(((y < 0) | (y >= width)).any()), f"classes from 0 to {width - 1}"
    else:
        wrong, expected = y.shape[1] != width, f"{width} values a row"
    if wrong:
        raise InvalidInput(f"y does not suit the network: expected {expected}", field="y")
