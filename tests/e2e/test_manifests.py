"""What is written for containers, clusters and balancers: it can be read, fits its schema, and names only what exists.

No container engine runs here: images are not built by a test. The steps of the Dockerfile are those of test_install.py."""

import functools
import os
import re
import shutil
import subprocess

import pytest
import yaml

from harness import BUILD, ROOT

kubernetes = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not in the tests' venv")
DEPLOY = ROOT / "deploy"
PROGRAMS = {"banyan", "banyan-router", "banyan-scheduler", "banyan-tokenizer-worker", "banyan-detokenizer", "banyan-gpu-worker",
            "banyan-health", "banyan-hf-worker"}


@functools.cache
def options():
    return set(re.findall(r"^\| `(--[\w-]+)`", (DEPLOY / "docs/options.md").read_text(), re.M))


@functools.cache
def paths():
    return set(re.findall(r"\{HTTP1_\w+, \"([^\"]+)\"", (ROOT / "router/routes.c").read_text()))


def documents(name):
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def walk(node):
    """Every mapping of a tree of YAML."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(child)


def check_words(words):
    """A command line: its program is ours, its options are in the table."""
    text = " ".join(map(str, words))
    assert set(re.findall(r"(?:^|[\s\"])(--[a-z][a-z-]+)", text)) <= options(), text
    for program in re.findall(r"\bbanyan(?:-[a-z]+)*\b(?=[\s\"]|$)", text):
        assert program in PROGRAMS, text


def check_environment(names):
    for name in names:
        if name.startswith("BANYAN_"):
            assert "--" + name[7:].lower().replace("_", "-") in options(), name


# ---- Kubernetes ----


@pytest.mark.parametrize("name", ["kubernetes/cpu.yaml", "kubernetes/ranks.yaml"])
def test_kubernetes_takes_it(name):
    n = 0
    for document in documents(name):
        if document["kind"] == "LeaderWorkerSet":  # a type of its own: its pods are what the schema knows
            group = document["spec"]["leaderWorkerTemplate"]
            for part in ("leaderTemplate", "workerTemplate"):
                document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", **group[part]["metadata"]}, "spec": group[part]["spec"]}
                kubernetes.validate(document, "1.31", strict=True)
        else:
            kubernetes.validate(document, "1.31", strict=True)
        n += 1
    assert n >= 2


def test_the_schema_would_refuse_a_mistake():
    [deployment] = [d for d in documents("kubernetes/cpu.yaml") if d["kind"] == "Deployment"]
    deployment["spec"]["template"]["spec"]["containers"][0]["redinessProbe"] = {}
    with pytest.raises(kubernetes.ValidationError):
        kubernetes.validate(deployment, "1.31", strict=True)


@pytest.mark.parametrize("name", ["kubernetes/cpu.yaml", "kubernetes/ranks.yaml"])
def test_pods_name_what_exists(name):
    n_probes = 0
    for node in walk(documents(name)):
        if "image" in node:
            check_words([*node.get("command", []), *node.get("args", [])])
            check_environment(e["name"] for e in node.get("env", []))
            assert not node["securityContext"]["allowPrivilegeEscalation"] and node["securityContext"]["readOnlyRootFilesystem"]
            mounted = {m["name"] for m in node["volumeMounts"]}
            assert mounted
        if "httpGet" in node:
            assert node["httpGet"]["path"] in paths()
            n_probes += 1
        if "banyan.yaml" in node:
            for key in yaml.safe_load(node["banyan.yaml"]):
                assert "--" + key.replace("_", "-") in options(), key
    assert n_probes >= 3


def test_a_pod_mounts_what_it_has_and_gets_the_time_to_drain():
    for name in ("kubernetes/cpu.yaml", "kubernetes/ranks.yaml"):
        for node in walk(documents(name)):
            if "containers" not in node:
                continue
            volumes = {v["name"] for v in node["volumes"]}
            assert {m["name"] for c in node["containers"] for m in c["volumeMounts"]} <= volumes
            assert node["securityContext"]["runAsNonRoot"]
    config = yaml.safe_load(documents("kubernetes/cpu.yaml")[0]["data"]["banyan.yaml"])
    [pod] = [d["spec"]["template"]["spec"] for d in documents("kubernetes/cpu.yaml") if d["kind"] == "Deployment"]
    sleeps = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > sleeps + config["drain_timeout"]


def test_the_autoscaler_asks_for_a_metric_that_there_is():
    [hpa] = [d for d in documents("kubernetes/cpu.yaml") if d["kind"] == "HorizontalPodAutoscaler"]
    names = set(re.findall(r"^\| `(\w+)`", (DEPLOY / "docs/metrics.md").read_text(), re.M))
    for metric in hpa["spec"]["metrics"]:
        assert metric["pods"]["metric"]["name"].removeprefix("banyan_") in names


# ---- compose and Docker ----


def test_compose_names_what_exists():
    [compose] = documents("docker/compose.yml")
    assert {"scheduler", "tokenizer-worker", "detokenizer", "gpu-worker", "router-a", "router-b", "haproxy"} == set(compose["services"])
    for name, service in compose["services"].items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        if name == "haproxy":
            continue
        check_words([*service["entrypoint"], *service["command"]])
        check_environment(service["environment"])
        assert service["build"]["dockerfile"] == "deploy/docker/Dockerfile.cpu"
        assert set(service.get("secrets", [])) <= set(compose["secrets"])
        assert set(service["networks"]) <= set(compose["networks"])
        for volume in service["volumes"]:
            source = re.sub(r"\$\{[^}]*\}", "/", volume).split(":")[0]
            assert source in compose["volumes"] or source.startswith("/"), volume
    [volume] = [v for v in compose["services"]["haproxy"]["volumes"]]
    assert (DEPLOY / "docker" / volume.split(":")[0]).resolve() == DEPLOY / "conf/haproxy.cfg"
    variables = set(re.findall(r"\$\{(BANYAN_\w+)\}", (DEPLOY / "conf/haproxy.cfg").read_text()))
    assert variables == set(compose["services"]["haproxy"]["environment"])


def test_only_the_balancer_is_reached_from_outside():
    [compose] = documents("docker/compose.yml")
    assert [name for name, s in compose["services"].items() if "ports" in s or "outside" in s["networks"]] == ["haproxy"]
    assert compose["networks"]["inside"]["internal"]


def test_the_dockerfile_names_what_exists():
    text = (DEPLOY / "docker/Dockerfile.cpu").read_text()
    for script in re.findall(r"\bdeploy/[\w./-]+\.sh", text):
        assert (ROOT / script).exists(), script
    check_environment(set(re.findall(r"\b(BANYAN_\w+)=", text)) - {"BANYAN_CACHE"})
    assert "BANYAN_CACHE" in (ROOT / "common/base/file.h").read_text()
    cmake = (ROOT / "CMakeLists.txt").read_text() + " BUILD_TESTING "
    for flag in re.findall(r"-D(\w+)=", text):
        assert flag in cmake, flag
    stages = text.split("\nFROM ")
    assert len(stages) == 3 and "USER 990:990" in stages[-1] and "COPY . ." not in stages[-1]


def test_it_builds_without_the_tests(tmp_path):
    """As the Dockerfile configures it; configuring is enough to find what only the tests need."""
    done = subprocess.run(["cmake", "-S", ROOT, "-B", tmp_path, "-DBUILD_TESTING=OFF", "-DCMAKE_DISABLE_FIND_PACKAGE_Python3=ON"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---- balancers ----

ADDRESSES = {"BANYAN_BIND": "127.0.0.1:8000", "BANYAN_ROUTER_A": "127.0.0.1:30000", "BANYAN_ROUTER_B": "127.0.0.1:30001"}


@pytest.mark.skipif(not shutil.which("haproxy"), reason="haproxy is not here")
def test_haproxy_takes_it():
    done = subprocess.run(["haproxy", "-c", "-V", "-f", DEPLOY / "conf/haproxy.cfg"], capture_output=True, text=True,
                          env={**os.environ, **ADDRESSES})
    assert done.returncode == 0 and "WARNING" not in done.stdout + done.stderr, done


@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not here")
def test_nginx_takes_it(tmp_path):
    whole = tmp_path / "nginx.conf"
    whole.write_text(f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ access_log off; include {DEPLOY}/conf/nginx.conf; }}\n")
    done = subprocess.run(["nginx", "-t", "-c", whole, "-p", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["haproxy.cfg", "nginx.conf"])
def test_a_balancer_keeps_outsiders_from_what_changes_the_server(name):
    text = (DEPLOY / "conf" / name).read_text()
    admin = set(re.findall(r"\{HTTP1_\w+, \"([^\"]+)\",\s*\w+,\s*ROUTE_ADMIN", (ROOT / "router/routes.c").read_text()))
    assert all(path.lstrip("/") in text for path in admin), admin


def test_the_example_of_keys_can_be_read(tmp_path):
    path = tmp_path / "keys"
    shutil.copy(DEPLOY / "conf/api-keys.example", path)
    path.chmod(0o600)
    done = subprocess.run([BUILD / "bin/banyan-router", "--api-key-file", path, "--run-dir", tmp_path, "--uds", "/nowhere/x"],
                          capture_output=True, text=True, timeout=30)
    assert "/nowhere/x" in done.stderr and "line" not in done.stderr, done  # it got past the keys


def test_the_page_of_faults_names_tests_that_exist():
    """A row that lost its test would go on promising."""
    page = (DEPLOY / "docs/faults.md").read_text()
    tests = "".join(p.read_text(errors="replace") for p in (ROOT / "tests").rglob("*") if p.suffix in (".py", ".c", ".txt"))
    files = {p.name for p in (ROOT / "tests").rglob("*.c")}
    soak = {name for p in (ROOT / "tests/soak").glob("*.py") for name in re.findall(r"^@check\ndef (\w+)", p.read_text(), re.M)}
    names = re.findall(r"`(\w+(?:\.c)?)`", page)
    assert len(names) > 60
    for name in names:
        assert name in soak or name in files or re.search(rf"(def |TEST\(|NAME ){name}\b", tests), name
