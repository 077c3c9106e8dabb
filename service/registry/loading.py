"""From a version's folder to a verified model."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import logging
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from service import __version__
from service.calibration.apply import CALIBRATED_FIELDS
from service.calibration.artifact import FILE as CALIBRATION
from service.calibration.artifact import (
    Calibration,
    Conditions,
    read_calibration,
    stale_for,
)
from service.errors import CalibrationFailed, CandorError, ModelBroken
from service.inference import prediction
from service.inference.devices import Resources, described
from service.inference.ensemble import Ensemble
from service.inference.fields import FIELDS, ROWS_SECOND, SUMMARY_FIELDS, Fields
from service.inference.graph import GraphNetwork
from service.inference.masks import member_seed
from service.inference.outputs import check_outputs, values
from service.inference.posterior import Posterior
from service.inference.prediction import Prediction, Request, always
from service.inference.recorded import nothing_recorded
from service.inference.sampler import Sampler, build_sampler
from service.inference.sites import output_tensor
from service.inference.tuning import Tuned
from service.registry import repository
from service.registry.archive import FILE as ARCHIVE
from service.registry.archive import load_archive
from service.registry.calibrated import CalibratedPrediction
from service.registry.manifest import InputSpec, Manifest
from service.registry.members import member_files, passes_warnings, read_note
from service.registry.repository import NOTE, inside, refuse_links_out
from service.registry.verified import Held, VerifiedModel
from service.types import ModelRef, SamplePlan, Task

log = logging.getLogger(__name__)

VARIABLE_DIMENSION = 32
"""Size that stands for −1 when a model is verified."""

_WARMED_ROWS = (1, 8, 32)
_WARMED_S = 0.5

_OF_ITS_CODE = (Exception, SystemExit)
"""What a model's own code may raise: a command line that it reads, as a script does, ends programs.
"""

_PACKAGE = "_candor_model_"

_USUAL = (*SUMMARY_FIELDS, *CALIBRATED_FIELDS)
"""What a request gets that does not say what it wants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel(VerifiedModel):
    """A version that was verified and can be run.

    Args:
        sampler: its network or networks, ready to run.
    """

    sampler: Posterior

    def begin(
        self, requests: Sequence[Request], wanted: Callable[[int], bool] = always
    ) -> Prediction | CalibratedPrediction:
        """A prediction that can be put aside; see `prediction.predict` for what it takes.

        A calibrated version adds `calibration.apply`'s fields.
        """
        task = self.manifest.task
        if self.calibration is None:
            return Prediction(self.sampler, task, requests, wanted)
        return CalibratedPrediction(self.sampler, task, self.calibration, requests, wanted)

    def predict(
        self, requests: Sequence[Request], wanted: Callable[[int], bool] = always
    ) -> list[Fields | None]:
        """See `prediction.predict`."""
        run = self.begin(requests, wanted)
        run.advance()
        return run.answers()

    def evaluate(self, inputs: Tensor) -> Fields:
        """See `prediction.evaluate`."""
        return prediction.evaluate(self.sampler, self.manifest.task, inputs)


def load_version(
    root: Path,
    folder: Path,
    ref: ModelRef,
    manifest: Manifest,
    resources: Resources,
) -> LoadedModel:
    """Build the network, read its weights and verify it with real passes of both kinds.

    With several members each is verified; what is measured to choose the fastest way is measured
    of the first. They share the memory that one network would have.

    Args:
        root: nothing outside it is read.
        folder: of the model.
        ref: which version.
        manifest: of the model.
        resources: where it will run and what it may use.

    Raises:
        ModelBroken: with a sentence that says what is wrong and what to do.
    """
    refuse_links_out(root, folder)
    files = member_files(folder / str(ref.version))
    note = read_note(folder / str(ref.version))
    off = "" if note.dropout else f"dropout is off, as {NOTE} says"
    members: list[_Member] = []
    shared = _share(resources, len(files))
    with _alike(folder, ref, manifest, shared) as tuned:
        for number, file in enumerate(files):
            with _explained(folder, manifest, file.name if len(files) > 1 else ""):
                first = members[0] if members else None
                like = tuned.value if first is None else first.sampler.tuned_as
                member = _load_member(folder, file, number, manifest, shared, first, like, off)
                members.append(member)
        tuned.value = members[0].sampler.tuned_as
    networks, samplers = [m.network for m in members], [m.sampler for m in members]
    sampler: Posterior = samplers[0] if len(samplers) == 1 else Ensemble(samplers)
    drops = any(one.dropping.sites for one in samplers)
    warned = passes_warnings(manifest.passes, files, drops)
    if len(members) > 1 and not drops:
        manifest = manifest.model_copy(update={"passes": len(members)})
    with _explained(folder, manifest, ""):
        plan = SamplePlan(max(2, len(members)), manifest.seed, manifest.masks)
        request = Request(members[0].example(2), plan, FIELDS)
        [answer] = prediction.predict(sampler, manifest.task, [request])
    log.info("verified %s: %s", ref, sampler.strategy.reason)
    conditions = Conditions(
        repository.weights_digest(folder, ref.version, manifest, _imported(folder, manifest)),
        manifest.passes,
        manifest.masks,
        sampler.precision,
    )
    calibration, uncalibrated = _calibration(folder / str(ref.version), manifest, conditions)
    lost = [warning for n in networks if isinstance(n, GraphNetwork) for warning in n.warnings]
    warned = (
        *sampler.dropping.warnings,
        *dict.fromkeys(lost),
        *warned,
        *_precision_refused(sampler, resources),
        *([f"{CALIBRATION} is not used: {uncalibrated}"] if uncalibrated else []),
    )
    for warning in warned:
        log.warning("%s: %s", ref, warning)
    loaded = LoadedModel(
        ref,
        manifest,
        sampler=sampler,
        parameters=sum(p.numel() for network in networks for p in network.parameters()),
        outputs=_outputs(manifest, members[0].output_shape),
        precision=sampler.precision,
        conditions=conditions,
        held=_held(answer, manifest.input),
        warnings=warned,
        origin=note.origin,
        calibration=calibration,
        uncalibrated=uncalibrated,
    )
    with _explained(folder, manifest, ""):
        _warm(loaded, members[0].example)
    return loaded


@dataclass(slots=True)
class _Shared:
    """What was measured of a version, here or by another process."""

    value: Tuned | None = None


@contextmanager
def _alike(
    folder: Path, ref: ModelRef, manifest: Manifest, resources: Resources
) -> Iterator[_Shared]:
    """What another process has measured of this version, or the place for what this one does.

    What the network's code imports is not known before it is built; that changes what is fastest
    no more than other weights do.
    """
    shared, choices = _Shared(), resources.choices
    weights = _digest(folder, ref, manifest) if choices is not None else None
    if choices is None or weights is None:
        yield shared
        return
    budget = f"{resources.memory_bytes}, {resources.noise_bytes} bytes, {resources.precision}"
    of = f"{ref}, {weights}, {manifest.passes} passes, {manifest.masks}, {manifest.seed}"
    key = f"{__version__}: {of}; {described(resources.device)}; {budget}"
    known = shared.value = choices.known(key)
    try:
        yield shared
    except BaseException:
        if known is None:
            choices.given_up(key)
        raise
    if known is None:
        assert shared.value is not None, "said by whoever measured"
        choices.measured(key, shared.value)


def _digest(folder: Path, ref: ModelRef, manifest: Manifest) -> str | None:
    """Of what is there; None where something is missing, which who reads it says in words."""
    try:
        return repository.weights_digest(folder, ref.version, manifest)
    except OSError:
        return None


def _warm(loaded: LoadedModel, example: Callable[[int], Tensor]) -> None:
    """Answer some requests as they come, so that nobody pays for being the first.

    Their noise is prepared, kernels are chosen for their sizes, and what a calibration adds is seen
    to fit. Of a network that is slow only the first.
    """
    started = time.monotonic()
    for rows in _WARMED_ROWS:
        inputs = example(rows)
        loaded.evaluate(inputs)
        loaded.predict([Request(inputs, loaded.manifest.plan_for(), _USUAL)])
        if time.monotonic() - started > _WARMED_S:
            return


def _outputs(manifest: Manifest, shape: torch.Size) -> int:
    """C, of raw outputs [B], [B, C, D...] or, with their noise, [B, 2 C, D...]."""
    width = shape[1] if len(shape) > 1 else 1
    return width // 2 if manifest.task is Task.HETEROSCEDASTIC_REGRESSION else width


def _held(answer: Fields | None, spec: InputSpec) -> dict[str, Held]:
    """What an answer of two rows tells of all answers."""
    assert answer is not None, "somebody waited for it"
    arrays = {name: array for name, array in answer.items() if array is not None}
    places = arrays["mean"].ndim - 2 if -1 in spec.shape else 0
    found: dict[str, Held] = {}
    for name in arrays.keys() & {*FIELDS}:
        shape = [*arrays[name].shape]
        shape[1 if name in ROWS_SECOND else 0] = -1
        if name == "samples":
            shape[0] = -1
        shape[len(shape) - places :] = [-1] * places
        found[name] = Held(str(arrays[name].dtype), tuple(shape))
    return found


def _calibration(
    folder: Path, manifest: Manifest, conditions: Conditions
) -> tuple[Calibration | None, str | None]:
    """That of a version, or why what is there is not used."""
    try:
        found = read_calibration(folder)
    except CalibrationFailed as error:
        return None, error.message
    if found is None:
        return None, None
    if found.task is not manifest.task:
        return None, f"it was made for a {found.task} task, and this is a {manifest.task} task"
    stale = stale_for(found.conditions, conditions)
    return (None, stale) if stale else (found, None)


@dataclass(frozen=True, slots=True)
class _Member:
    """One network of a version, verified.

    Args:
        network: on its device.
        sampler: of it.
        example: makes inputs [B, D...] for a B.
        output_shape: for three rows.
    """

    network: nn.Module
    sampler: Sampler
    example: Callable[[int], Tensor]
    output_shape: torch.Size


def _load_member(
    folder: Path,
    file: Path,
    number: int,
    manifest: Manifest,
    resources: Resources,
    first: _Member | None,
    like: Tuned | None,
    off: str,
) -> _Member:
    """Read one file of weights and verify its network.

    Args:
        folder: of the model.
        file: its weights, or an archive.
        number: of the member, from 0.
        manifest: of the model.
        resources: its share of them.
        first: the first member, which the others have to be alike.
        like: what was measured before; None where it is to be measured now.
        off: why nothing is to drop; empty where dropout is on.
    """
    if file.suffix == Path(ARCHIVE).suffix:
        network = load_archive(file)
    else:
        network = build_network(folder, manifest)
        read_weights(network, file)
    network.to(resources.device).eval().requires_grad_(False)
    example = example_of(manifest.input, resources.device)
    output_shape = _verify_deterministic(network, manifest, example)
    if first is not None:
        _check_alike(network, output_shape, first)
    with nothing_recorded(resources.device):
        sampler = build_sampler(
            network,
            example,
            device=resources.device,
            memory_bytes=resources.memory_bytes,
            noise_bytes=resources.noise_bytes,
            seed=member_seed(manifest.seed, number),
            passes=manifest.passes,
            precision=resources.precision,
            to_values=functools.partial(values, manifest.task),
            stochastic=manifest.stochastic,
            deterministic=manifest.deterministic,
            off=off,
            variable=[i + 1 for i, size in enumerate(manifest.input.shape) if size == -1],
            like=like,
        )
    return _Member(network, sampler, example, output_shape)


def _check_alike(network: nn.Module, output_shape: torch.Size, first: _Member) -> None:
    if output_shape != first.output_shape:
        raise ModelBroken(
            f"it returns {list(output_shape)} for three rows, and the first member "
            f"{list(first.output_shape)}; members have to be of one architecture"
        )
    own, other = (
        {name: list(tensor.shape) for name, tensor in n.state_dict().items()}
        for n in (network, first.network)
    )
    differing = {name for name in own.keys() | other.keys() if own.get(name) != other.get(name)}
    if differing:
        raise ModelBroken(
            f"its weights have other names or shapes than the first member's: {_some(differing)}; "
            "members have to be of one architecture"
        )


def _share(resources: Resources, members: int) -> Resources:
    """What one of several members may use, so that they stay within the whole together."""
    return dataclasses.replace(
        resources,
        memory_bytes=max(1, resources.memory_bytes // members),
        noise_bytes=resources.noise_bytes // members,
    )


@contextmanager
def _explained(folder: Path, manifest: Manifest, file: str) -> Iterator[None]:
    """Whatever goes wrong as a sentence on the network, which begins with the file if one is named.

    Raises:
        ModelBroken: something went wrong.
    """
    prefix = f"{file}: " if file else ""
    try:
        yield
    except CandorError as error:
        if not prefix or file in error.message:
            raise
        raise type(error)(prefix + error.message) from error
    except Exception as error:
        shape = ["B", *manifest.input.shape]
        raise ModelBroken(
            f"{prefix}the network failed on an input of the declared shape {shape}, "
            f"{manifest.input.dtype}: {_in_words(error, folder)}"
        ) from error


def build_network(folder: Path, manifest: Manifest) -> nn.Module:
    """What the folder's `network.py` builds, without weights.

    Raises:
        ModelBroken: it is missing, or does not build a module.
    """
    file_name, function_name = manifest.network.split(":")
    path = inside(folder, folder / file_name)
    if not path.is_file():
        raise ModelBroken(f"{path} is missing; model.toml names it under `network`")
    try:
        build = getattr(_import(folder, path), function_name, None)
    except _OF_ITS_CODE as error:
        raise ModelBroken(f"{path} cannot be imported: {_in_words(error, folder)}") from error
    if not callable(build):
        raise ModelBroken(f"{path} has no function {function_name}; model.toml names it")
    try:
        network = build()
    except _OF_ITS_CODE as error:
        raise ModelBroken(
            f"{function_name}() of {path} raised {_in_words(error, folder)}"
        ) from error
    if not isinstance(network, nn.Module):
        raise ModelBroken(
            f"{function_name}() of {path} returned {type(network).__name__}; expected an nn.Module"
        )
    return network


class _Source(SourceFileLoader):
    """Compiles what a file says now.

    Python takes what it compiled before where a file's size is the same and its time to the second,
    as of one that was changed at once, or wherever all files get one time.
    """

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


class _Beside(MetaPathFinder):
    """Finds the files that models import from beside their own."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is None or not fullname.startswith(_PACKAGE):
            return None
        finders = (FileFinder(folder, (_Source, SOURCE_SUFFIXES)) for folder in path)
        found = (finder.find_spec(fullname, target) for finder in finders)
        return next((spec for spec in found if spec is not None and spec.loader is not None), None)


sys.meta_path.insert(0, _Beside())


def _package_of(folder: Path) -> str:
    digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return f"{_PACKAGE}{digest}"


def _imported(folder: Path, manifest: Manifest) -> dict[str, Path]:
    """The files beside its own that a network's code has imported at its last load, by name."""
    before = f"{_package_of(folder)}."
    own = Path(manifest.network.split(":")[0]).stem
    found = {}
    # A copy: others may import meanwhile.
    for name, module in [*sys.modules.items()]:
        if name.startswith(before) and name != before + own:
            file = getattr(module, "__file__", None)
            if file is not None:
                found[name.removeprefix(before)] = Path(file)
    return found


def _import(folder: Path, path: Path) -> ModuleType:
    """Import `path` as part of a package of the folder's own, so that `from .x import y` works."""
    package_name = _package_of(folder)
    name = f"{package_name}.{path.stem}"
    for stale in [key for key in sys.modules if key.split(".")[0] == package_name]:
        del sys.modules[stale]
    package = ModuleType(package_name)
    package.__path__ = [str(folder)]
    sys.modules[package_name] = package
    spec = importlib.util.spec_from_file_location(name, path, loader=_Source(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def read_weights(network: nn.Module, path: Path) -> None:
    """Fill `network` from a safetensors file.

    Raises:
        ModelBroken: it is missing, or does not fit.
    """
    if not path.is_file():
        raise ModelBroken(
            f"{path} is missing; save the trained network with "
            f"safetensors.torch.save_model(network, path), or put a {ARCHIVE} there"
        )
    try:
        missing, unexpected = safetensors.torch.load_model(network, path, strict=False)
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelBroken(f"{path} is no safetensors file: {error}") from error
    except RuntimeError as error:
        raise ModelBroken(f"{path} does not fit the network: {error}") from error
    if missing or unexpected:
        raise ModelBroken(
            f"{path} does not fit the network: "
            f"without weights are {_some(missing)}; not in the network are {_some(unexpected)}"
        )


def _some(names: Collection[str]) -> str:
    shown = ", ".join(sorted(names)[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown or "none"


def example_of(spec: InputSpec, device: torch.device) -> Callable[[int], Tensor]:
    """Makes inputs [B, D...] of the declared shape and type for a B, always the same."""
    dtype: torch.dtype = getattr(torch, spec.dtype)
    row = [VARIABLE_DIMENSION if size == -1 else size for size in spec.shape]

    def example(rows: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        if dtype.is_floating_point:
            inputs = torch.randn(rows, *row, generator=generator)
        else:
            # Whatever the integers mean (token, category, pixel), 0 and 1 are among them.
            inputs = torch.randint(0, 2, (rows, *row), generator=generator)
        return inputs.to(device, dtype)

    return example


def _verify_deterministic(
    network: nn.Module, manifest: Manifest, example: Callable[[int], Tensor]
) -> torch.Size:
    """The shape of its outputs for three rows."""
    inputs = example(3)
    with torch.inference_mode():
        outputs, again = network(inputs), network(inputs)
    outputs, again = output_tensor(outputs), output_tensor(again)
    check_outputs(manifest.task, outputs, len(inputs), manifest.labels)
    if outputs.isnan().all():
        raise ModelBroken("the network gives nothing but NaN on standard normal inputs")
    if not torch.allclose(outputs, again, rtol=0.0, atol=0.0, equal_nan=True):
        raise ModelBroken(
            "two passes in eval mode differ: something draws random numbers although dropout is "
            "off; make it depend on self.training"
        )
    return outputs.shape


def _precision_refused(sampler: Posterior, resources: Resources) -> tuple[str, ...]:
    if resources.precision == "auto" or resources.precision == sampler.precision:
        return ()
    return (
        f"CANDOR_PRECISION={resources.precision} does not apply: passes run in {sampler.precision} "
        f"({sampler.strategy.reason})",
    )


def _in_words(error: BaseException, folder: Path) -> str:
    """The error with the last line of the model's own code that was involved."""
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).resolve().is_relative_to(folder.resolve())
    ]
    place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{place}"
