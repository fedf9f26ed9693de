"""The OpenAPI document against the server that serves it: schemathesis makes requests of it, right ones and wrong ones."""

import json
import re
import subprocess
import sys

import pytest

from harness import ROOT, Daemons

QUIET = ["--log-level", "error"]
KEY = "sk-all-of-it"


@pytest.fixture(scope="module")
def small():
    """A short context, so that the longest answer that a request can ask for is soon over."""
    with Daemons(router=[*QUIET, "--request-timeout", "5", "--api-key", KEY], scheduler=QUIET, 
                 gpu_worker=["--context", "128", "--embed", "8", "--labels", "1"]) as d:
        yield d


@pytest.fixture(scope="module")
def document(small):
    return small.get("/openapi.json").json


def test_it_is_the_committed_one(document):
    """What clients are generated from is in the repository; `make docs` writes it."""
    assert document == json.loads((ROOT / "deploy/docs/openapi.json").read_text())


def test_every_route_is_in_it(document):
    rows = re.findall(r"\{HTTP1_(\w+), \"([^\"]+)\",", (ROOT / "router/routes.c").read_text())
    told = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert told == {(method, path.replace("*", "{id}")) for method, path in rows}


def test_it_is_valid_openapi(document):
    """Each schema is one, and each reference leads somewhere."""
    import jsonschema

    assert document["openapi"].startswith("3.1.")
    schemas = document["components"]["schemas"]
    for name, schema in schemas.items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert name == "OllamaShow" or schema, f"{name} says nothing"
    for ref in re.findall(r'"\$ref": "#/components/(\w+)/(\w+)"', json.dumps(document)):
        assert ref[1] in document["components"][ref[0]], ref


def test_the_parameters_are_those_of_the_table(document):
    """Each name that params.c reads is in one of the schemas, with its range."""
    native = document["components"]["schemas"]["SamplingParams"]
    names = set(re.findall(r'^    \{"(\w+)",', (ROOT / "router/params.c").read_text(), re.M))
    assert names | {"max_new_tokens"} == set(native["properties"]) and native["additionalProperties"] is False
    assert native["properties"]["top_p"] == {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1}
    chat = document["components"]["schemas"]["Chat"]["properties"]
    assert {"messages", "temperature", "max_tokens", "max_completion_tokens", "min_tokens", "stream", "rid"} <= set(chat)


# What a schema cannot say (a prompt within the context, ids within the vocabulary) may refuse a request that fits it: so
# "a fitting request is taken" is not among the checks. /drain would end the service for all that follow.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance," \
         "negative_data_rejection,unsupported_method,ignored_auth,allow_header_conformance"


def test_schemathesis_finds_nothing(small, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{small.port}/openapi.json", "--checks", CHECKS, "--seed", "1",
         "--max-examples", "6", "--generation-deterministic", "--phases", "examples,coverage,fuzzing",
         "--exclude-path", "/drain", "--header", f"Authorization: Bearer {KEY}", "--request-timeout", "30", "--no-color", "--suppress-health-check", "all", "--max-failures", "20"],
        capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]
    assert int(re.search(r"(\d+) generated", done.stdout)[1]) > 1000
    assert small.get("/ready").status == 200
