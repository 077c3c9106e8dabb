"""All models of a repository, their versions and states. Safe to use from several threads."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from service.errors import CandorError, ModelBroken, ModelNotFound, ModelNotReady
from service.inference.devices import Resources
from service.registry import repository
from service.registry.loading import LoadedModel, load_version
from service.registry.manifest import FILE, Manifest, read_manifest
from service.types import ModelRef

log = logging.getLogger(__name__)

_LOADING_RETRY_S = 2.0

_UNLOADED = "unloaded on request; POST /models/{name}/load loads it"


class State(StrEnum):
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    UNLOADED = "unloaded"


@dataclass(slots=True)
class Version:
    """One version; `model` is there when it is ready, `reason` says why it is not."""

    number: int
    state: State = State.LOADING
    reason: str = ""
    model: LoadedModel | None = None


@dataclass(slots=True)
class Model:
    """One model folder; without a manifest it is broken as a whole, for `reason`."""

    name: str
    manifest: Manifest | None = None
    reason: str = ""
    versions: dict[int, Version] = field(default_factory=dict)

    @property
    def default_version(self) -> int | None:
        """The highest version that was verified."""
        ready = [v.number for v in self.versions.values() if v.state is State.READY]
        return max(ready, default=None)

    @property
    def state(self) -> State:
        """Of the model as a whole: ready as soon as one version is."""
        if self.default_version is not None:
            return State.READY
        states = {v.state for v in self.versions.values()}
        if State.LOADING in states:
            return State.LOADING
        return State.UNLOADED if states == {State.UNLOADED} else State.FAILED


class Registry:
    """The models below `root`.

    Args:
        root: the model repository.
        resources: where models run and what they may use.
        default_model: serves requests that name no model; not needed where there is one.
    """

    def __init__(
        self,
        root: Path,
        resources: Resources,
        default_model: str | None = None,
    ) -> None:
        self._root = root
        self._resources = resources
        self._default_model = default_model
        self._models: dict[str, Model] = {}
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._stopping = threading.Event()
        self.loaded = threading.Event()

    def scan(self, only: str | None = None) -> None:
        """List what is there; everything found is `loading` until `load_all` has been through.

        Args:
            only: look at this model alone.

        Raises:
            ModelBroken: the repository itself is missing.
        """
        names = repository.model_names(self._root)
        found = {name: self._read(name) for name in names if only in (None, name)}
        with self._lock:
            self._models = found

    def load_all(self) -> None:
        """Load every version that was found. Slow: not for an event loop."""
        for name in [model.name for model in self.models()]:
            with self._loading:
                # It may have been loaded or unloaded on request meanwhile.
                model = self._models[name]
                for number, version in sorted(model.versions.items()):
                    if self._stopping.is_set():
                        return
                    if version.state is State.LOADING:
                        self._load(model, number)
        self.loaded.set()

    def reload(self, name: str) -> Model:
        """Read the folder of a model again: what is new there, its calibration among it, serves.

        See `load`.

        Raises:
            ModelNotFound: it is not listed, or its folder is gone.
            ModelBroken: its folder cannot be read now; the old model serves on.
            ModelNotReady: the server ends.
        """
        self.model(name)
        return self.load(name)

    def load(self, name: str) -> Model:
        """Load a model: one that is listed, serving or not, or whose folder is new.

        What served before serves until what replaces it was verified, and where that is broken it
        serves on. Slow: not for an event loop.

        Raises:
            ModelNotFound: there is no such folder.
            ModelBroken: the folder cannot be read now; the old model serves on.
            ModelNotReady: the server ends.
        """
        repository.check_name(name)
        with self._loading:
            if name not in repository.model_names(self._root):
                raise self._gone(name)
            fresh = self._read(name)
            old = self._models.get(name)
            serves = old is not None and old.state is State.READY
            if not serves:
                # It is seen to be loading, or why it cannot be.
                self._list(fresh)
            if fresh.manifest is None:
                raise ModelBroken(fresh.reason)
            for number in sorted(fresh.versions):
                if self._stopping.is_set():
                    raise ModelNotReady(f"{name} was not loaded: the server is shutting down")
                self._load(fresh, number)
                before = old.versions.get(number) if old is not None else None
                failed = fresh.versions[number]
                if failed.state is State.FAILED and before and before.model is not None:
                    log.error("%s/%s is as it was: %s", name, number, failed.reason)
                    fresh.versions[number] = before
            self._list(fresh)
            return fresh

    def unload(self, name: str) -> Model:
        """Stop serving a model; requests that were accepted are answered by what they began with.

        It stays listed, and `load` loads it again.

        Raises:
            ModelNotFound: it is not listed.
        """
        with self._loading:
            old = self.model(name)
            model = Model(name, old.manifest, old.reason)
            model.versions = {
                number: Version(number, State.UNLOADED, _UNLOADED.format(name=name))
                for number in old.versions
            }
            self._list(model)
            return model

    def _list(self, model: Model) -> None:
        """Have a model take the place of the one of its name."""
        with self._lock:
            self._models = dict(sorted({**self._models, model.name: model}.items()))

    def _gone(self, name: str) -> ModelNotFound:
        if name not in self._models:
            known = ", ".join(self._models) or "none"
            return ModelNotFound(
                f"there is no folder of model {name!r}; there are: {known}",
                field="model",
                received=name,
            )
        return ModelNotFound(
            f"the folder of model {name!r} is gone; what was loaded of it serves on",
            field="model",
            received=name,
        )

    def stop(self) -> None:
        """Make a `load_all` in another thread return soon."""
        self._stopping.set()

    def models(self) -> list[Model]:
        """All models, sorted by name."""
        with self._lock:
            return list(self._models.values())

    def model(self, name: str) -> Model:
        """One model.

        Raises:
            ModelNotFound: with the names that there are.
        """
        repository.check_name(name)
        with self._lock:
            if name in self._models:
                return self._models[name]
            known = ", ".join(self._models) or "none"
        raise ModelNotFound(
            f"there is no model {name!r}; there are: {known}", field="model", received=name
        )

    def version(self, name: str, number: int) -> Version:
        """One version.

        Raises:
            ModelNotFound: with the versions that there are.
        """
        model = self.model(name)
        if number not in model.versions:
            known = ", ".join(map(str, model.versions)) or "none"
            raise ModelNotFound(
                f"model {name!r} has no version {number}; it has: {known}",
                field="version",
                received=number,
            )
        return model.versions[number]

    def resolve(self, name: str | None, number: int | None) -> LoadedModel:
        """The model that serves a request.

        Args:
            name: None for the default, or the only one.
            number: None for the highest version that is ready.

        Raises:
            ModelNotFound: there is no such model or version, or none was named where many are.
            ModelNotReady: it is loading, or it failed.
        """
        model = self.model(self._default_name() if name is None else name)
        if number is None:
            number = model.default_version
            if number is None:
                raise self._not_ready(model)
            version = model.versions[number]
        else:
            version = self.version(model.name, number)
        if version.model is None:
            raise self._not_ready(model, version)
        return version.model

    def _default_name(self) -> str:
        if self._default_model is not None:
            return self._default_model
        with self._lock:
            names = list(self._models)
        if len(names) == 1:
            return names[0]
        raise ModelNotFound(
            f"name a `model`: there are {', '.join(names) or 'none'}. CANDOR_DEFAULT_MODEL sets "
            "one for requests that name none",
            field="model",
            expected=names,
        )

    def _not_ready(self, model: Model, version: Version | None = None) -> ModelNotReady:
        what = model.name if version is None else f"{model.name}/{version.number}"
        state = model.state if version is None else version.state
        if state is State.LOADING:
            return ModelNotReady(f"{what} is still loading", retry_after_s=_LOADING_RETRY_S)
        reasons = [v.reason for v in model.versions.values()] if version is None else []
        reason = version.reason if version else (model.reason or "; ".join(reasons))
        return ModelNotReady(f"{what} does not serve: {reason}")

    def _read(self, name: str) -> Model:
        folder = self._root / name
        model = Model(name)
        try:
            repository.inside(self._root, folder)
            repository.inside(folder, folder / FILE)
            model.manifest = read_manifest(folder)
            model.versions = {n: Version(n) for n in repository.versions(folder)}
        except ModelBroken as error:
            model.reason = error.message
            log.error("model %s cannot be served: %s", name, error.message)
        return model

    def _load(self, model: Model, number: int) -> None:
        assert model.manifest is not None
        ref = ModelRef(model.name, number)
        try:
            loaded = load_version(
                self._root,
                self._root / model.name,
                ref,
                model.manifest,
                self._resources,
            )
        except CandorError as error:
            done = Version(number, State.FAILED, error.message)
        except Exception as error:
            # Loading runs people's own code: whatever it raises must not reach other models.
            log.exception("loading %s", ref)
            done = Version(number, State.FAILED, f"{type(error).__name__}: {error}")
        else:
            done = Version(number, State.READY, "", loaded)
        if done.state is State.FAILED:
            log.error("model %s cannot be served: %s", ref, done.reason)
        with self._lock:
            model.versions[number] = done
