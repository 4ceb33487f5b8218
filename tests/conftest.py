"""What holds for every test. In CI (BEHEST_CI=1) a skip is a failure, unless its reason begins with `optional:`."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

# Read when grpc is imported. Programs are started under other users here, by a real fork; grpc's handlers have no business in those.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from kit.kafka import kafka, kafka_server, private_kafka

__all__ = ["kafka", "kafka_server", "private_kafka"]  # fixtures for every test

Report = pytest.TestReport | pytest.CollectReport
STRICT = bool(os.environ.get("BEHEST_CI"))

# Whether a property holds does not depend on how busy the machine is.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")


@pytest.fixture(autouse=True)
def logs_as_usual() -> Iterator[None]:
    """What a suite in this process made of the logs is undone: the next test may look for a line that it left out."""
    yield
    structlog.reset_defaults()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Report, Report]:
    """A test's report, failed where it was skipped without leave."""
    return _refuse_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Report, Report]:
    """A module's report, failed where all of it was skipped without leave."""
    return _refuse_skip((yield))


def _refuse_skip(report: Report) -> Report:
    if STRICT and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not reason.startswith("optional:"):
            report.outcome = "failed"
            report.longrepr = f"skipped, which CI may not: {reason}"
    return report
