"""What all black-box tests share: the servers they run are shown when one fails."""

import pytest

import harness


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if not report.failed:
        return
    for name, value in getattr(item, "funcargs", {}).items():
        if isinstance(value, (harness.Daemons, harness.Serve)):
            report.sections.append((f"what {name} said", value.logs()[-30000:]))
