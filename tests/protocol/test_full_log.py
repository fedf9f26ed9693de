"""A log that can take no more: no process ends of it, and no request is lost."""

import resource

from harness import CHATML, TINY, Daemons, Serve, in_threads, stand_in

PROMPTS = [[20 + i] * 20 for i in range(8)]
LOUD = ["--log-level", "debug"]


class Unlogged(Daemons):
    """All it says goes to a disk that is full."""

    def start(self, name, **env):
        log = self.dir / f"{name}.log"
        log.unlink(missing_ok=True)
        log.symlink_to("/dev/full")
        try:
            super().start(name, **env)
        finally:
            log.unlink()


def ask(s):
    return in_threads([lambda p=p: s.generate(p, 100)[:2] for p in PROMPTS])


def test_a_full_disk_under_the_logs():
    flags = {name: LOUD for name in ("scheduler", "tokenizer_worker", "detokenizer")}
    with Daemons() as d:
        whole = ask(d)
    with Unlogged(**flags, router=[*LOUD, "--log-requests"], gpu_worker=[]) as d:
        assert ask(d) == whole
        for name in list(d.processes):  # and their ends and starts say nothing either
            if name != "router":
                d.restart(name)
                assert ask(d) == whole
        assert all(p.poll() is None for p in d.processes.values())


def test_a_log_file_at_its_limit(tmp_path):
    """As LimitFSIZE= and ulimit -f set it: the kernel's SIGXFSZ ended whoever said the next line."""
    with Serve("--model-path", TINY, "--chat-template", CHATML, *LOUD, worker=stand_in(tmp_path)) as s:
        whole, pids = ask(s), s.pids()
        size = s.log.stat().st_size
        for pid in [s.process.pid, *pids.values()]:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, size))
        assert ask(s) == whole
        assert s.generate("and text", 4)[2]["completion_tokens"] == 4
        assert s.process.poll() is None and s.pids() == pids
        said = s.log.stat().st_size
    assert said <= size + 65536  # what was written meanwhile, before the limit stood
