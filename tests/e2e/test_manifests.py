"""What is written for containers, clusters and balancers: it can be read, fits its schema, and names only what exists.

No container engine runs here: images are not built by a test. tests/images/rehearse.py runs the steps of a Dockerfile in a chroot."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from harness import BUILD, ROOT

sys.path.insert(0, str(ROOT / "tests/images"))
import rehearse  # noqa: E402

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
            words = " ".join([*node.get("command", []), *node.get("args", [])])
            assert node["image"] == ("banyan:cuda" if "--device cuda" in words else "banyan:cpu")
            assert ("nvidia.com/gpu" in node.get("resources", {}).get("limits", {})) == ("--device cuda" in words)
            assert (DEPLOY / f"docker/Dockerfile.{node['image'].removeprefix('banyan:')}").exists()
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
            assert node["enableServiceLinks"] is False  # BANYAN_PORT=tcp://… of the Service called banyan: no process started
    config = yaml.safe_load(documents("kubernetes/cpu.yaml")[0]["data"]["banyan.yaml"])
    [pod] = [d["spec"]["template"]["spec"] for d in documents("kubernetes/cpu.yaml") if d["kind"] == "Deployment"]
    sleeps = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > sleeps + config["drain_timeout"]


def test_the_autoscaler_asks_for_a_metric_that_there_is():
    [hpa] = [d for d in documents("kubernetes/cpu.yaml") if d["kind"] == "HorizontalPodAutoscaler"]
    names = set(re.findall(r"^\| `banyan:(\w+)`", (DEPLOY / "docs/metrics.md").read_text(), re.M))
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


def test_the_cuda_stack_is_the_other_with_a_device():
    [whole], [cuda] = documents("docker/compose.yml"), documents("docker/compose.cuda.yml")
    assert set(cuda["services"]) == {"gpu-worker"} <= set(whole["services"])
    worker = cuda["services"]["gpu-worker"]
    check_words([*whole["services"]["gpu-worker"]["entrypoint"], *worker["command"]])
    assert worker["build"]["context"] == whole["services"]["gpu-worker"]["build"]["context"] and worker["image"] != "banyan:cpu"
    assert (ROOT / worker["build"]["dockerfile"]).exists()
    [device] = worker["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia" and "gpu" in device["capabilities"]
    said = (DEPLOY / "docker/compose.cuda.yml").read_text()
    for path in re.findall(r"-f (\S+)", said):
        assert (ROOT / path).exists(), path
    assert set(re.findall(r"\$\{(\w+)", said)) == {"BANYAN_GPU"}  # compose's own, not an option


def test_only_the_balancer_is_reached_from_outside():
    [compose] = documents("docker/compose.yml")
    assert [name for name, s in compose["services"].items() if "ports" in s or "outside" in s["networks"]] == ["haproxy"]
    assert compose["networks"]["inside"]["internal"]


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_the_dockerfile_names_what_exists(kind):
    path = DEPLOY / f"docker/Dockerfile.{kind}"
    text = path.read_text()
    for script in re.findall(r"\bdeploy/[\w./-]+\.sh", text):
        assert (ROOT / script).exists(), script
    said = (ROOT / "deploy/setup.sh").read_text()
    for flag in re.findall(r"setup\.sh (--\w+)", text):
        assert f"\n        {flag}) " in said, flag
    check_environment(set(re.findall(r"\b(BANYAN_\w+)=", text)) - {"BANYAN_CACHE"} - set(re.findall(r"-D(\w+)=", text)))
    assert "BANYAN_CACHE" in (ROOT / "common/base/file.h").read_text()
    cmake = " BUILD_TESTING ".join((ROOT / f).read_text() for f in ("CMakeLists.txt", "gpu_worker/cuda/CMakeLists.txt"))
    for flag in re.findall(r"-D(\w+)=", text):
        assert flag in cmake, flag
    assert path.with_name(path.name + ".dockerignore").exists()


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_the_image_has_no_compiler_and_no_root(kind):
    (_, _, build), (_, base, last) = rehearse.read(DEPLOY / f"docker/Dockerfile.{kind}")
    words = dict(last)
    assert ("COPY", ". .") in build and ("COPY", ". .") not in last
    assert base.endswith("-slim") and words["USER"] == "990:990" and not any("setup.sh" in rest for _, rest in last)
    assert {"ENTRYPOINT", "CMD", "HEALTHCHECK", "VOLUME", "STOPSIGNAL"} <= words.keys()
    for word in ("ENTRYPOINT", "HEALTHCHECK"):
        [program] = json.loads(words[word][words[word].index("["):])
        assert program in PROGRAMS
    assert all("rm -rf" in rest and "/var/lib/apt/lists/*" in rest for word, rest in last if word == "RUN" and "apt-get" in rest)
    assert last.index(("USER", "990:990")) > max(i for i, (word, _) in enumerate(last) if word in ("RUN", "COPY"))


@pytest.mark.skipif(os.environ.get("BANYAN_TEST_LONG") != "yes", reason="the images' own steps in an empty root (--long)")
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("debootstrap"), reason="a chroot, for which it takes root and debootstrap")
def test_the_steps_of_the_image_make_a_server(tmp_path):
    subprocess.run([ROOT / "tests/images/rehearse.py", "cpu", "--work", tmp_path], check=True)


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


def test_the_router_refuses_large_bodies_itself():
    most = int(re.search(r"OPT_INT\(max_body_bytes, (\d+)", (ROOT / "common/base/options.def").read_text())[1])
    mib = int(re.search(r"client_max_body_size (\d+)m;", (DEPLOY / "conf/nginx.conf").read_text())[1])
    assert most < mib << 20 <= most * 1.1


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
