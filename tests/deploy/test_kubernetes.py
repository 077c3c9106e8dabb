"""What `deploy/kubernetes` says is what Kubernetes knows, and holds of the server."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service import __version__
from service.api.exposure import refuse_open_door
from service.api.security import ACCESS, OPEN
from service.errors import InvalidInput
from service.settings import Settings, load_settings
from service.tokens import Token, hash_of, make_token
from tests.deploy.manifests import (
    DOCKERFILE,
    KSERVE,
    KUBERNETES,
    MONITORING,
    ROOT,
    container,
    given,
    kustomization,
    manifests,
    of_the_image,
    patched,
    pod,
    predictor,
    read,
    runtime,
)
from tests.deploy.test_deploy import alerts, metrics, needs_promtool, promtool

VERSIONS = ("1.27", "1.37")
"""Of Kubernetes: the oldest that has all that is used, and the newest that is known here."""
KSERVE_CLIENT = ROOT / ".venv-clients" / "kserve" / "bin" / "python"
AFTER_THE_DRAIN_S = 20
"""What docker-compose.yml allows beyond CANDOR_DRAIN_TIMEOUT_S."""
_UNITS = {"Mi": 2**20, "Gi": 2**30}
KINDS = [
    "PersistentVolumeClaim",
    "Deployment",
    "Service",
    "HorizontalPodAutoscaler",
    "PodDisruptionBudget",
]


def known_to_kubernetes(manifest: dict[str, Any], version: str) -> None:
    """By the schemas of that version, in which no field is unknown."""
    assert kubernetes_validate.validate(manifest, version, strict=True) == version


def settings_of(variables: dict[str, str], folder: Path) -> Settings:
    """As a container would read them whose secret holds two tokens."""
    lines = [f"anna:predict:{hash_of(make_token())}", f"ops:admin:{hash_of(make_token())}"]
    (folder / "tokens").write_text(",\n".join(lines) + "\n")
    here = {
        name: str(folder / Path(value).name) if name.endswith("_FILE") else value
        for name, value in variables.items()
    }
    return load_settings(environment={**of_the_image(), **here})


def mounts(one: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By their paths."""
    return {mount["mountPath"]: mount for mount in one["volumeMounts"]}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_kubernetes_knows_every_field(kind: str, version: str) -> None:
    known_to_kubernetes(manifests()[kind], version)


def test_a_field_that_it_does_not_know_would_show() -> None:
    deployment = manifests()["Deployment"]
    deployment["spec"]["template"]["spec"]["terminationGracePeriod"] = 60
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
        known_to_kubernetes(deployment, VERSIONS[-1])


def test_all_that_is_there_is_applied() -> None:
    assert sorted(manifests()) == sorted(KINDS)
    there = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(kustomization()["resources"]) == there


def test_images_are_of_this_version() -> None:
    for each in (container(), runtime()["containers"][0]):
        assert each["image"] == f"candor:{__version__}"
    [image] = kustomization()["images"]
    assert (image["name"], image["newTag"]) == ("candor", __version__)


def test_labels_lead_to_the_pods() -> None:
    found = manifests()
    deployment = found["Deployment"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    [spread] = pod()["topologySpreadConstraints"]
    selectors = [
        deployment["selector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        spread["labelSelector"]["matchLabels"],
    ]
    assert all(selector == labels for selector in selectors)
    [scrape] = read(MONITORING / "prometheus.yml")["scrape_configs"]
    [[selector]] = [each["selectors"] for each in scrape["kubernetes_sd_configs"]]
    assert selector["label"] == ",".join(f"{name}={value}" for name, value in labels.items())


@pytest.mark.parametrize("one", [container(), runtime()["containers"][0]], ids=["pod", "kserve"])
def test_ports_are_those_that_the_image_listens_on(one: dict[str, Any]) -> None:
    [port] = one["ports"]
    assert str(port["containerPort"]) == of_the_image()["CANDOR_PORT"]
    assert re.findall(r"^EXPOSE (\d+)$", DOCKERFILE, re.MULTILINE) == [str(port["containerPort"])]


def test_the_service_leads_to_the_containers_port() -> None:
    [served] = manifests()["Service"]["spec"]["ports"]
    assert served["targetPort"] == container()["ports"][0]["name"]
    [scrape] = read(MONITORING / "prometheus.yml")["scrape_configs"]
    [kept] = [rule for rule in scrape["relabel_configs"] if rule.get("action") == "keep"]
    assert kept["source_labels"] == ["__meta_kubernetes_pod_container_port_name"]
    assert kept["regex"] == container()["ports"][0]["name"]


@pytest.mark.parametrize("one", [container(), runtime()["containers"][0]], ids=["pod", "kserve"])
def test_probes_ask_for_what_answers_without_a_token(one: dict[str, Any]) -> None:
    [port] = one["ports"]
    probes = {name: one[name]["httpGet"] for name in one if name.endswith("Probe")}
    for asked in probes.values():
        assert ACCESS[asked["path"]]["GET"] == OPEN
        assert asked["port"] in (port.get("name"), port["containerPort"])
    # What is not ready is not dead: a broken model would have the pod started again and again.
    assert "ready" in probes.pop("readinessProbe")["path"]
    assert all("live" in asked["path"] for asked in probes.values())


def test_a_start_a_liveness_and_a_readiness_probe_are_there() -> None:
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container())


@pytest.mark.parametrize("one", [container(), runtime()["containers"][0]], ids=["pod", "kserve"])
def test_variables_are_settings_and_fit(one: dict[str, Any], tmp_path: Path) -> None:
    variables = {name: text for name, text in given(one).items() if name.startswith("CANDOR_")}
    settings = settings_of(variables, tmp_path)
    refuse_open_door(settings)
    assert [token.name for token in settings.tokens] == ["anna", "ops"]
    del variables["CANDOR_TOKENS_FILE"]
    with pytest.raises(InvalidInput, match="token"):
        refuse_open_door(settings_of(variables, tmp_path))
    others = {each["name"] for each in one["env"]} - set(given(one)) - {"OMP_NUM_THREADS"}
    assert {name.removeprefix("CANDOR_").lower() for name in others} <= set(Settings.model_fields)


def test_without_a_database_in_the_secret_the_images_file_is_taken() -> None:
    [database] = [each for each in container()["env"] if each["name"] == "CANDOR_DATABASE_URL"]
    assert database["valueFrom"]["secretKeyRef"]["optional"] is True
    assert of_the_image()["CANDOR_DATABASE_URL"].startswith("sqlite:")


def test_the_secret_is_that_which_is_made() -> None:
    says = (KUBERNETES / "kustomization.yaml").read_text()
    [(name, key, value)] = re.findall(
        r"create secret generic (\w+) --from-literal=(\w+)='([^']+)'", says
    )
    example = value.replace("sha256:...", hash_of("x")).removesuffix(",...")
    assert Token.of(example).name == "anna"
    for volumes in (pod()["volumes"], runtime()["volumes"]):
        [secret] = [volume["secret"] for volume in volumes if "secret" in volume]
        assert secret == {"secretName": name, "items": [{"key": key, "path": key}]}
    for one in (container(), runtime()["containers"][0]):
        assert given(one)["CANDOR_TOKENS_FILE"] in {
            f"{path}/{key}" for path, mount in mounts(one).items() if mount["name"] == "tokens"
        }
    for each in container()["env"]:
        reference = each.get("valueFrom", {}).get("secretKeyRef")
        assert reference is None or reference["name"] == name


def test_the_monitors_token_lies_where_it_reads_it() -> None:
    config = read(MONITORING / "prometheus.yml")
    [scrape] = config["scrape_configs"]
    assert scrape["authorization"]["credentials_file"].startswith("/run/secrets/")
    jobs = {
        job for rule in alerts().values() for job in re.findall(r'job="(\w+)"', str(rule["expr"]))
    }
    assert jobs == {scrape["job_name"]}
    for file in config["rule_files"]:
        assert (ROOT / "deploy" / file).is_file()


def test_it_may_as_little_as_the_container_of_compose() -> None:
    compose = read(ROOT / "docker-compose.yml")["services"]["candor"]
    [user, group] = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)[0]
    for rights in (
        {**pod()["securityContext"], **container()["securityContext"]},
        runtime()["containers"][0]["securityContext"],
    ):
        assert rights["runAsNonRoot"] is True
        assert (str(rights["runAsUser"]), str(rights["runAsGroup"])) == (user, group)
        assert rights["readOnlyRootFilesystem"] is compose["read_only"] is True
        assert rights["capabilities"] == {"drop": compose["cap_drop"]} == {"drop": ["ALL"]}
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["seccompProfile"] == {"type": "RuntimeDefault"}
    assert compose["security_opt"] == ["no-new-privileges:true"]
    for spec in (pod(), predictor()):
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False


def test_it_may_write_where_it_does_and_nowhere_else() -> None:
    compose = read(ROOT / "docker-compose.yml")["services"]["candor"]
    named = [volume.split(":") for volume in compose["volumes"]]
    writable = {*compose["tmpfs"], *(where for _, where, *more in named if "ro" not in more)}
    [folder] = {Path(of_the_image()["CANDOR_DATABASE_URL"].removeprefix("sqlite:///")).parent}
    assert writable == {"/tmp", str(folder)}
    for one, volumes in ((container(), pod()["volumes"]), (runtime()["containers"][0], None)):
        places = mounts(one)
        assert {path for path in places if not places[path].get("readOnly")} == writable
        names = {volume["name"] for volume in volumes or runtime()["volumes"]}
        assert {mount["name"] for mount in places.values()} == names


def test_models_lie_where_they_are_looked_for() -> None:
    place = of_the_image()["CANDOR_MODELS"]
    [volume] = [
        each for each in pod()["volumes"] if each["name"] == mounts(container())[place]["name"]
    ]
    claim = manifests()["PersistentVolumeClaim"]["metadata"]["name"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim
    assert predictor()["model"]["storageUri"] == f"pvc://{claim}"
    # Where KServe's storage initializer puts it.
    assert given(runtime()["containers"][0])["CANDOR_MODELS"] == "/mnt/models"


def test_there_is_time_to_end(tmp_path: Path) -> None:
    variables = {name: v for name, v in given(container()).items() if name.startswith("CANDOR_")}
    drain_s = settings_of(variables, tmp_path).drain_timeout_s
    word, sleeps_s = container()["lifecycle"]["preStop"]["exec"]["command"]
    assert word == "sleep"
    enough_s = float(sleeps_s) + drain_s + AFTER_THE_DRAIN_S
    assert pod()["terminationGracePeriodSeconds"] >= enough_s
    assert predictor()["terminationGracePeriodSeconds"] >= drain_s + AFTER_THE_DRAIN_S
    compose = read(ROOT / "docker-compose.yml")["services"]["candor"]["stop_grace_period"]
    assert float(compose.removesuffix("s")) >= Settings().drain_timeout_s + AFTER_THE_DRAIN_S


def test_a_hung_engine_ends_the_container_and_a_slow_answer_does_not(tmp_path: Path) -> None:
    variables = {name: v for name, v in given(container()).items() if name.startswith("CANDOR_")}
    settings = settings_of(variables, tmp_path)
    probe = container()["livenessProbe"]
    assert 0 < probe["periodSeconds"] * probe["failureThreshold"] < settings.engine_hang_s
    assert probe["timeoutSeconds"] < probe["periodSeconds"]


def test_what_the_settings_let_in_fits_into_the_memory(tmp_path: Path) -> None:
    variables = {name: v for name, v in given(container()).items() if name.startswith("CANDOR_")}
    settings = settings_of(variables, tmp_path)
    most = (
        settings.body_bytes
        + settings.queue_bytes
        + settings.max_answer_bytes
        + settings.memory_bytes
        + settings.noise_bytes
        + settings.keep_queue_bytes
    )
    for one in (container(), runtime()["containers"][0]):
        limits, requests = one["resources"]["limits"], one["resources"]["requests"]
        assert _bytes(limits["memory"]) > most > _bytes(requests["memory"])


def _bytes(quantity: str) -> int:
    return int(quantity[:-2]) * _UNITS[quantity[-2:]]


@pytest.mark.parametrize("one", [container(), runtime()["containers"][0]], ids=["pod", "kserve"])
def test_there_are_as_many_threads_as_processors(one: dict[str, Any]) -> None:
    [threads] = [each for each in one["env"] if each["name"] == "OMP_NUM_THREADS"]
    assert threads["valueFrom"] == {"resourceFieldRef": {"resource": "limits.cpu"}}
    assert float(one["resources"]["limits"]["cpu"]) >= 1


def test_the_autoscaler_scales_what_is_there_by_what_is_measured() -> None:
    found = manifests()
    scaler = found["HorizontalPodAutoscaler"]["spec"]
    target = found["Deployment"]
    names = {"apiVersion": target["apiVersion"], "kind": "Deployment", "name": "candor"}
    assert scaler["scaleTargetRef"] == names
    assert target["metadata"]["name"] == "candor"
    assert "replicas" not in target["spec"]
    asked = [each["pods"]["metric"]["name"] for each in scaler["metrics"] if "pods" in each]
    assert len(asked) == 2
    assert asked == [rule["name"]["as"] for rule in adapter_rules()]
    [resource] = [each["resource"]["name"] for each in scaler["metrics"] if "resource" in each]
    assert resource in container()["resources"]["requests"]
    # One may go while another serves.
    budget = found["PodDisruptionBudget"]["spec"]["maxUnavailable"]
    assert scaler["minReplicas"] > budget >= 1


def adapter_rules() -> list[dict[str, Any]]:
    """Of prometheus-adapter."""
    found: list[dict[str, Any]] = read(MONITORING / "adapter.yaml")["rules"]["custom"]
    return found


def test_the_adapter_asks_for_series_that_the_server_has_and_labels_that_are_made() -> None:
    names, _ = metrics()
    [scrape] = read(MONITORING / "prometheus.yml")["scrape_configs"]
    made = {rule["target_label"] for rule in scrape["relabel_configs"] if "target_label" in rule}
    for rule in adapter_rules():
        found = re.fullmatch(r"(\w+)\{(.+)\}", rule["seriesQuery"])
        assert found is not None
        series, wanted = found.groups()
        assert series in names
        assert set(re.findall(r'(\w+)!=""', wanted)) == set(rule["resources"]["overrides"]) == made


@needs_promtool
def test_prometheus_reads_its_configuration_and_what_the_adapter_asks(tmp_path: Path) -> None:
    # Debian's knows no Kubernetes: the pods are found otherwise in what it is shown.
    config = read(MONITORING / "prometheus.yml")
    [scrape] = config["scrape_configs"]
    del scrape["kubernetes_sd_configs"]
    scrape["static_configs"] = [{"targets": ["candor:8000"]}]
    shown = tmp_path / "prometheus.yml"
    shown.write_text(yaml.safe_dump(config))
    promtool("check", "config", "--syntax-only", shown)
    rules = []
    for rule in adapter_rules():
        query = rule["metricsQuery"].replace("<<.Series>>", rule["seriesQuery"].split("{")[0])
        query = query.replace("<<.LabelMatchers>>", 'namespace="x",pod=~"a|b"')
        query = query.replace("<<.GroupBy>>", "pod")
        assert "<<" not in query
        rules.append({"record": "asked:" + rule["name"]["as"], "expr": query})
    file = tmp_path / "adapter.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "adapter", "rules": rules}]}))
    promtool("check", "rules", file)


@pytest.mark.parametrize("version", VERSIONS)
def test_with_cuda_a_pod_has_a_gpu(version: str) -> None:
    overlay = kustomization(KUBERNETES / "cuda")
    assert [(KUBERNETES / "cuda" / name).resolve() for name in overlay["resources"]] == [KUBERNETES]
    [image] = overlay["images"]
    assert (image["name"], image["newTag"]) == ("candor", f"{__version__}-cuda")
    assert f"candor:{image['newTag']}" in DOCKERFILE
    [change] = overlay["patches"]
    deployment = manifests()[change["target"]["kind"]]
    assert deployment["metadata"]["name"] == change["target"]["name"]
    made = patched(deployment, change["patch"])
    known_to_kubernetes(made, version)
    limits = made["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == 1
    assert limits["memory"] == container()["resources"]["limits"]["memory"]
    assert "nvidia.com/gpu" not in container()["resources"]["limits"]


OF_KSERVE = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "model"}
"""What a predictor has beside the fields of a pod."""


@pytest.mark.parametrize("version", VERSIONS)
def test_what_kserve_hands_on_is_a_pod(version: str) -> None:
    spec = {name: value for name, value in predictor().items() if name not in OF_KSERVE}
    both = {**spec, "containers": runtime()["containers"], "volumes": runtime()["volumes"]}
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "candor"}, "spec": both}
    known_to_kubernetes(made, version)


def test_kserves_service_finds_its_runtime() -> None:
    model = predictor()["model"]
    assert model["runtime"] == read(KSERVE / "runtime.yaml")["metadata"]["name"]
    [known] = runtime()["supportedModelFormats"]
    assert model["modelFormat"] == {"name": known["name"]}
    assert [model["protocolVersion"]] == runtime()["protocolVersions"] == ["v2"]
    # The one into which KServe puts the models.
    assert [each["name"] for each in runtime()["containers"]] == ["kserve-container"]
    assert "POST" in ACCESS["/v2/models/{name}/infer"]


@pytest.mark.skipif(not KSERVE_CLIENT.exists(), reason="make clients installs KServe's package")
def test_kserve_knows_every_field(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text((KSERVE / "inferenceservice.yaml").read_text().replace("minR", "leastR"))
    script = Path(__file__).with_name("kserve_names.py")
    files = [KSERVE / "runtime.yaml", KSERVE / "inferenceservice.yaml", wrong]
    command = [str(word) for word in (KSERVE_CLIENT, "-W", "ignore", script, *files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == [[], [], ["InferenceService.spec.predictor.leastReplicas"]]
