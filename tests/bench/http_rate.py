"""The router's front, beside nginx that answers a fixed body: requests a second, in turn, on the same machine in the same run.

    apt-get install wrk nginx-light; .venv/bin/python tests/bench/http_rate.py [SECONDS]      writes tests/bench/results/http_rate.md

A stand-in plays the model, so a tiny request goes through every process and costs no arithmetic. The best of three rounds is kept:
noise only takes away. Rows to reach: /health at half of nginx's rate, tiny requests at 0.15 of it.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness import Daemons, wait_for  # noqa: E402

ROUNDS, CONNECTIONS = 3, 64
RESULT = Path(__file__).parent / "results/http_rate.md"
CONF = """worker_processes 1; daemon off; pid {dir}/pid; error_log {dir}/error.log;
events {{ worker_connections 1024; }}
http {{ access_log off; keepalive_requests 1000000; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;
 uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
 server {{ listen 127.0.0.1:{port}; default_type application/json; location / {{ return 200 '{body}'; }} }} }}
"""
POST = """wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"input_ids": [20, 21, 22], "sampling_params": {"max_new_tokens": 1, "temperature": 0}}'
"""


def rate(url, seconds, script=None):
    argv = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", *(["-s", script] if script else []), url]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in said and "Socket errors" not in said, said
    return float(re.search(r"Requests/sec: +([\d.]+)", said)[1])


def main():
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    for program in ("wrk", "nginx"):
        if not shutil.which(program):
            sys.exit(f"{program} is not installed: apt-get install wrk nginx-light")
    quiet = ["--log-level", "error"]
    with tempfile.TemporaryDirectory() as folder, Daemons(router=quiet, scheduler=quiet) as d:
        tiny = d.ok("/generate", {"input_ids": [20, 21, 22], "sampling_params": {"max_new_tokens": 1, "temperature": 0}})
        (Path(folder) / "post.lua").write_text(POST)
        body = re.sub(r"['$\\]", "", str(tiny))  # as long as ours
        conf = Path(folder) / "nginx.conf"
        port = 20000 + os.getpid() % 20000
        conf.write_text(CONF.format(dir=folder, port=port, body=body))
        nginx = subprocess.Popen(["nginx", "-p", folder, "-c", str(conf)], stderr=subprocess.DEVNULL)
        try:
            fixed = f"http://127.0.0.1:{port}/"
            wait_for("nginx", lambda: subprocess.run(["wrk", "-c1", "-t1", "-d1s", fixed], capture_output=True).returncode == 0)
            ours = f"http://127.0.0.1:{d.port}"
            runs = {"nginx, a fixed body": lambda: rate(fixed, seconds), "GET /health": lambda: rate(f"{ours}/health", seconds),
                    "POST /generate, one token": lambda: rate(f"{ours}/generate", seconds, str(Path(folder) / "post.lua"))}
            best = {name: 0.0 for name in runs}
            for _ in range(ROUNDS):
                for name, run in runs.items():
                    best[name] = max(best[name], run())
        finally:
            nginx.terminate()
            nginx.wait()
    base = best["nginx, a fixed body"]
    rows = [f"| {name} | {value:,.0f} | {value / base:.2f}x |" for name, value in best.items()]
    text = (f"# Requests a second, {CONNECTIONS} connections\n\n`tests/bench/http_rate.py`, {os.cpu_count()} CPUs, best of {ROUNDS} rounds of "
            f"{seconds} s; wrk runs on the same CPUs.\n\n| what | a second | of nginx |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n")
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
