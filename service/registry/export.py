"""Makes a .pt2 archive of a model folder, and proves that it says the same."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from service.errors import ModelBroken
from service.inference.exporting import NotExpressible, export
from service.inference.sightings import sightings, switched
from service.inference.sites import find_droppers
from service.registry import repository
from service.registry.archive import FILE, load_archive
from service.registry.loading import build_network, example_of, read_weights
from service.registry.manifest import InputSpec, read_manifest
from service.registry.members import member_files

_TOLERANCE = 1e-5
"""Of the deterministic pass, relative to the largest output: fused kernels round otherwise."""


def export_archive(folder: Path, version: int | None, out: Path, member: int | None = None) -> int:
    """Write the network and weights of a model folder as one archive with a dynamic batch.

    It is exported with what drops out in train mode, so that every site is in its graph.

    Args:
        folder: of the model.
        version: whose weights; None for the highest.
        out: the file to write.
        member: which one of a version that has several, from 1.

    Returns:
        How many dropout sites the archive has.

    Raises:
        ModelBroken: the folder cannot be read, the network cannot be exported, or its archive would
            not say the same.
    """
    manifest = read_manifest(folder)
    number = max(repository.versions(folder)) if version is None else version
    network = build_network(folder, manifest)
    read_weights(network, _weights(folder / str(number), member))
    network.eval().requires_grad_(False)
    example = example_of(manifest.input, torch.device("cpu"))
    inputs = example(2)
    droppers, _ = find_droppers(network, inputs, manifest.stochastic)
    expected_sites = len(sightings(network, droppers, inputs))
    with switched(network, droppers, keep_buffers=True):
        program = _export(network, inputs, manifest.input)
    torch.export.save(program, out)
    try:
        archived = load_archive(out).eval()
        _compare(network, archived, example(3))
        sites = len(sightings(archived, [archived], inputs))
        if sites != expected_sites:
            raise ModelBroken(
                f"the archive has {sites} dropout sites, and the network {expected_sites}"
            )
    except Exception:
        out.unlink()
        raise
    return sites


def _weights(folder: Path, member: int | None) -> Path:
    """The weights of a version, or of one of its members."""
    files = member_files(folder)
    members = len(files)
    if member is None and members == 1:
        return folder / repository.WEIGHTS if files[0].name == FILE else files[0]
    if member is None or not 1 <= member <= members:
        raise ModelBroken(
            f"{folder} has {members} member{'s' if members > 1 else ''}, and an archive holds one "
            f"network: name one from 1 to {members} with --member, and put its archive into a "
            "version's folder as model-1.pt2, model-2.pt2 and so on"
        )
    return files[member - 1]


def _export(network: nn.Module, inputs: Tensor, spec: InputSpec) -> torch.export.ExportedProgram:
    try:
        return export(network, inputs, [i + 1 for i, size in enumerate(spec.shape) if size == -1])
    except NotExpressible as error:
        raise ModelBroken(
            f"{error}; serve it as it is, with network.py and {repository.WEIGHTS}, {FILE} is not "
            "needed"
        ) from error


def _compare(network: nn.Module, archived: nn.Module, inputs: Tensor) -> None:
    with torch.inference_mode():
        expected, got = network(inputs), archived(inputs)
    limit = _TOLERANCE * float(expected.abs().max())
    if not torch.allclose(expected, got, rtol=0.0, atol=limit):
        error = (expected - got).abs().max()
        raise ModelBroken(f"the archive answers otherwise than the network, by {error:.2g}")
