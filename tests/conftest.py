"""Eight simulated devices, shape checks, and no silent skips. Set before jax is imported."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import pytest
from jaxtyping import install_import_hook

hook = install_import_hook(
    ["minillm.nn", "minillm.models", "minillm.objectives", "minillm.inference"], "beartype.beartype"
)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    """On CI a skipped test is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = 1
