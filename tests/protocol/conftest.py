import pytest

from harness import Daemons


@pytest.fixture(scope="session")
def server():
    """One set of daemons for all tests that leave it as they found it."""
    with Daemons(router=["--log-level", "warn"], scheduler=["--log-level", "warn"]) as d:
        yield d
