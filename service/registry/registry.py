"""All models of a repository, their versions and states. Safe to use from several threads."""

from __future__ import annotations

import logging
import threading
import weakref
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from service.errors import CandorError, ModelBroken, ModelNotFound, ModelNotReady
from service.inference.devices import Resources
from service.inference.posterior import Posterior
from service.inference.reclaiming import forget_exports
from service.registry import repository
from service.registry.loading import LoadedModel, load_version
from service.registry.manifest import FILE, Manifest, read_manifest
from service.registry.policy import NOT_CHOSEN, Serving
from service.registry.watch import Settling, Signature, of_version, signature
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
    """One version; `model` is there when it is ready, `reason` says why it is not.

    Of one that is ready, `reason` says why what is in its folder now is not what serves.
    """

    number: int
    state: State = State.LOADING
    reason: str = ""
    model: LoadedModel | None = None
    signature: Signature = frozenset()


@dataclass(slots=True)
class Model:
    """One model folder; without a manifest it is broken as a whole, for `reason`.

    Args:
        name: of the folder.
        manifest: its `model.toml`, as it was when something of the folder was last loaded.
        reason: why the folder, as it is now, cannot be loaded.
        versions: by number, ascending.
        unloaded: on request, until it is loaded on request.
        signature: of the folder when it was last read.
    """

    name: str
    manifest: Manifest | None = None
    reason: str = ""
    versions: dict[int, Version] = field(default_factory=dict)
    unloaded: bool = False
    signature: Signature = frozenset()

    @property
    def serving(self) -> Serving:
        """Which versions serve whom."""
        return Serving() if self.manifest is None else self.manifest.serving

    @property
    def ready(self) -> list[int]:
        """The versions that serve."""
        return [v.number for v in self.versions.values() if v.state is State.READY]

    @property
    def default_version(self) -> int | None:
        """The version of requests that name none; see `Serving.default`."""
        return self.serving.default(self.ready)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What its maker should look at; nothing while it is loading or unloaded."""
        if self.unloaded or State.LOADING in {v.state for v in self.versions.values()}:
            return ()
        return self.serving.warnings(self.versions, self.ready)

    @property
    def state(self) -> State:
        """Of the model as a whole: ready as soon as a request that names no version is served."""
        if self.default_version is not None:
            return State.READY
        states = {v.state for v in self.versions.values()}
        if State.LOADING in states:
            return State.LOADING
        return State.UNLOADED if self.unloaded else State.FAILED


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
        self._loading = threading.RLock()
        self._stopping = threading.Event()
        self._settling = Settling()
        self._retired: list[weakref.ref[Posterior]] = []
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
        """Load every model that was found. Slow: not for an event loop."""
        for name in [model.name for model in self.models()]:
            with self._loading:
                # It may have been loaded or unloaded on request meanwhile.
                model = self._models[name]
                if model.state is State.LOADING and not self._bring_up(model, None, again=True):
                    return
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
            return self._replace(name, again=True)

    def unload(self, name: str) -> Model:
        """Stop serving a model; requests that were accepted are answered by what they began with.

        It stays listed, and `load` loads it again.

        Raises:
            ModelNotFound: it is not listed.
        """
        with self._loading:
            old = self.model(name)
            model = Model(name, old.manifest, old.reason, unloaded=True, signature=old.signature)
            model.versions = {
                number: Version(number, State.UNLOADED, _UNLOADED.format(name=name))
                for number in old.versions
            }
            self._list(model)
            log.info("unloaded %s", name)
            return model

    def load_unchosen(self, name: str, number: int) -> LoadedModel:
        """A version that the version policy passed over, loaded nonetheless, for a tool.

        Raises:
            ModelNotFound: there is no such version.
            ModelNotReady: it is broken.
        """
        with self._loading:
            if self.version(name, number).state is State.UNLOADED:
                self._load(self.model(name), number, None)
            return self.resolve(name, number)

    def look(self) -> bool:
        """Take up what changed in the repository; whether anything did.

        A folder whose files are not as they were at the look before waits for the next one: it may
        still be copied. What failed is tried again once it changes. A model that was unloaded on
        request stays so. Slow where something changed.
        """
        with self._loading:
            try:
                names = repository.model_names(self._root, told=False)
            except ModelBroken as error:
                log.warning("the model repository cannot be looked at: %s", error)
                return False
            if not names and self._models:
                log.warning("no model is left in %s; what was loaded serves on", self._root)
                return False
            now = {name: signature(self._root / name) for name in {*names, *self._models}}
            changed = False
            for name in sorted(self._settling.settled(now)):
                if self._stopping.is_set():
                    break
                changed |= self._take_up(name, now[name])
            return changed

    def leftovers(self) -> int:
        """How many loads serve no more and still take memory, as while a request runs on them."""
        with self._lock:
            self._retired = [model for model in self._retired if model() is not None]
            return len(self._retired)

    def stop(self) -> None:
        """Have everything that loads end after the version that it is at."""
        self._stopping.set()

    def models(self) -> list[Model]:
        """All models, sorted by name."""
        with self._lock:
            return list(self._models.values())

    def serving(self) -> list[str]:
        """Names of the models that are ready, sorted."""
        return [model.name for model in self.models() if model.state is State.READY]

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

    def version(self, name: str, number: int | str) -> Version:
        """One version, by its number or label.

        Raises:
            ModelNotFound: with the versions, or labels, that there are.
            ModelNotReady: it is labelled and there is no folder of it.
        """
        return _version_of(self.model(name), number)

    def resolve(
        self, name: str | None, number: int | str | None, key: str | None = None
    ) -> LoadedModel:
        """The model that serves a request.

        Args:
            name: None for the default, or the only one.
            number: of the version, or its label; None for the default one, or, for a share of the
                keys, the canary.
            key: of the request, with which the same version is chosen again; None for the default.

        Raises:
            ModelNotFound: there is no such model or version, or none was named where many are.
            ModelNotReady: it is loading, it failed, or it was unloaded.
        """
        model = self.model(self._default_name() if name is None else name)
        if number is None:
            ready, serving = model.ready, model.serving
            number = serving.default(ready) if key is None else serving.pick(ready, model.name, key)
            if number is None:
                raise self._not_ready(model)
        # Of this model: another may have taken its place meanwhile, with other versions.
        version = _version_of(model, number)
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
        if version is not None:
            return ModelNotReady(f"{what} does not serve: {version.reason}")
        reasons = [model.reason, *model.warnings, *(v.reason for v in model.versions.values())]
        said = "; ".join(dict.fromkeys(filter(None, reasons)))
        return ModelNotReady(f"{what} does not serve: {said}")

    def _list(self, model: Model) -> None:
        """Have a model take the place of the one of its name."""
        with self._lock:
            self._retire(self._models.get(model.name), model)
            self._models = dict(sorted({**self._models, model.name: model}.items()))

    def _retire(self, old: Model | None, fresh: Model | None) -> None:
        """Remember the loads that serve no more, until they are gone."""
        kept = {id(v.model) for v in fresh.versions.values()} if fresh is not None else set()
        for version in old.versions.values() if old is not None else ():
            if version.model is not None and id(version.model) not in kept:
                self._retired.append(weakref.ref(version.model.sampler))

    def _gone(self, name: str) -> ModelNotFound:
        if name not in self._models:
            known = ", ".join(self._models) or "none"
            text = f"there is no folder of model {name!r}; there are: {known}"
        else:
            text = f"the folder of model {name!r} is gone; what was loaded of it serves on"
        return ModelNotFound(text, field="model", received=name)

    def _read(self, name: str) -> Model:
        folder = self._root / name
        # Looked at before anything is read: what changes from now on is a change to take up.
        model = Model(name, signature=signature(folder))
        try:
            repository.inside(self._root, folder)
            repository.inside(folder, folder / FILE)
            model.manifest = read_manifest(folder)
            model.versions = {n: Version(n) for n in repository.versions(folder)}
        except ModelBroken as error:
            model.reason = error.message
        except OSError as error:
            model.reason = f"{folder} cannot be read: {error}"
        if model.reason:
            log.error("model %s cannot be served: %s", name, model.reason)
        return model

    def _take_up(self, name: str, found: Signature) -> bool:
        """Bring a model to what its folder is now; whether that was something else."""
        old = self._models.get(name)
        if old is not None and (old.unloaded or old.signature == found):
            return False
        if not found:
            if old is None or (self._root / name).is_dir():
                # It is there and nothing of it can be seen, as where it may not be read.
                return False
            with self._lock:
                self._retire(self._models.pop(name), None)
            log.info("the folder of %s is gone: it is unloaded", name)
            return True
        try:
            self._replace(name, again=False)
        except CandorError as error:
            log.error("%s changed: %s", name, error.message)
        return True

    def _replace(self, name: str, *, again: bool) -> Model:
        """Read a model's folder and have what is there take the place of what was loaded of it."""
        fresh = self._read(name)
        old = self._models.get(name)
        if old is None or not old.ready:
            # It is seen to be loading, or why it cannot be.
            self._list(fresh)
        elif fresh.reason:
            old.reason = f"{fresh.reason}; what was loaded before serves on"
            old.signature = fresh.signature
        if fresh.reason:
            raise ModelBroken(fresh.reason)
        if not self._bring_up(fresh, old, again=again):
            raise ModelNotReady(f"{name} was not loaded: the server is shutting down")
        self._list(fresh)
        return fresh

    def _bring_up(self, model: Model, old: Model | None, *, again: bool) -> bool:
        """Load the versions of a model that are to serve, the highest first.

        Args:
            model: as it was read.
            old: what was loaded of it before.
            again: also load what is as it was loaded.

        Returns:
            Whether it came to the end, which it does unless the server ends.
        """
        above = 0
        for number in sorted(model.versions, reverse=True):
            before = None if old is None else old.versions.get(number)
            if not model.serving.wants(number, above):
                model.versions[number] = Version(number, State.UNLOADED, NOT_CHOSEN)
                continue
            if self._stopping.is_set():
                return False
            if old is None or before is None or again or not _alike(model, old, number):
                self._load(model, number, before)
            else:
                model.versions[number] = before
            above += model.versions[number].state is State.READY
        for warning in model.warnings:
            log.warning("%s: %s", model.name, warning)
        return True

    def _load(self, model: Model, number: int, before: Version | None) -> None:
        """Load one version; where it is broken and another load of it serves, that serves on."""
        assert model.manifest is not None
        ref = ModelRef(model.name, number)
        done = Version(number, State.FAILED, signature=of_version(model.signature, number, FILE))
        try:
            done.model = load_version(
                self._root,
                self._root / model.name,
                ref,
                model.manifest,
                self._resources,
            )
        except CandorError as error:
            done.reason = error.message
        except (Exception, SystemExit) as error:
            # Loading runs people's own code: whatever it raises must not reach other models, nor
            # end the thread that loads them.
            log.exception("loading %s", ref)
            done.reason = f"{type(error).__name__}: {error}"
        finally:
            forget_exports()
        if done.model is not None:
            done.state = State.READY
        else:
            log.error("model %s cannot be served: %s", ref, done.reason)
            if before is not None and before.model is not None:
                log.error("%s serves on as it was loaded before", ref)
                done.state, done.model = State.READY, before.model
                done.reason = (
                    f"what is in its folder now is not served: {done.reason}; what was loaded "
                    "before serves on"
                )
        with self._lock:
            model.versions[number] = done


def _version_of(model: Model, number: int | str) -> Version:
    """See `Registry.version`."""
    label = number
    if isinstance(label, str):
        labels = model.serving.labels
        if label not in labels:
            raise ModelNotFound(
                f"model {model.name!r} has no version that is labelled {label!r}; its labels are: "
                f"{', '.join(labels) or 'none'} ([serving] in model.toml)",
                field="version",
                expected=[*labels],
                received=label,
            )
        number = labels[label]
        if number not in model.versions:
            raise ModelNotReady(
                f"model {model.name!r} has no version {number}, which model.toml labels {label!r}"
            )
    if number not in model.versions:
        known = ", ".join(map(str, model.versions)) or "none"
        raise ModelNotFound(
            f"model {model.name!r} has no version {number}; it has: {known}",
            field="version",
            received=number,
        )
    return model.versions[int(number)]


def _alike(model: Model, old: Model, number: int) -> bool:
    """Whether all that a version's last load depended on is as it was then."""
    assert model.manifest is not None
    assert old.manifest is not None
    plain = {"serving": Serving()}
    return old.versions[number].signature == of_version(
        model.signature, number, FILE
    ) and model.manifest.model_copy(update=plain) == old.manifest.model_copy(update=plain)
