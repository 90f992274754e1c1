"""Eight simulated devices, shape checks, and no silent skips. Set before jax is imported."""

import os
import shutil
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
# tests spend their time in the compiler: it may write slower code here, and what it compiled once serves again; the tests
# of whole commands run users' machine code, and MINILLM_TEST_OPTIMIZED=1 makes all tests do so
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8" + (
    "" if os.environ.get("MINILLM_TEST_OPTIMIZED") else " --xla_backend_optimization_level=0"
)
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers inherit the folder, so that one compiles for all
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="minillm-compiled-")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import pytest
from jaxtyping import install_import_hook

hook = install_import_hook(
    ["minillm.nn", "minillm.models", "minillm.objectives", "minillm.inference"], "beartype.beartype"
)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    """On CI a skipped test is a failure."""
    if not hasattr(session.config, "workerinput"):
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = 1
