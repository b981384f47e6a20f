"""Settings that every test shares."""

import os
import sys

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if "PYTEST_XDIST_WORKER" in os.environ:
    # The workers share the cores; each with a pool for all of them is slower.
    for pool in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(pool, "1")


def _make_two_cpus() -> None:
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or []) < 2:
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)


def pytest_collection_finish(session: pytest.Session) -> None:
    # Before the first test makes TensorFlow choose its devices, and only where it is imported.
    if "tensorflow" in sys.modules and not session.config.option.collectonly:
        _make_two_cpus()


@pytest.fixture(scope="session")
def two_replicas():
    """A `MirroredStrategy` over two logical CPU devices; a second one would collide with it."""
    _make_two_cpus()
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
