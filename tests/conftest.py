"""Settings that every test shares."""

import os
import sys
from pathlib import Path

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


# Files whose tests wait for other processes or take minutes: begun first, they end with the others.
_LONG = ("distribution_test.py", "training_test.py", "readme_test.py", "all_models_test.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in _LONG)  # all else keeps its order


def pytest_collection_finish(session: pytest.Session) -> None:
    # Before the first test makes TensorFlow choose its devices, and only where it is imported.
    if "tensorflow" in sys.modules and not session.config.option.collectonly:
        _make_two_cpus()


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Path:
    """Where simulated data sets are built once, for all tests and workers that train on them."""
    own = tmp_path_factory.getbasetemp()
    return (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "data_of_all"


@pytest.fixture(scope="session")
def two_replicas():
    """A `MirroredStrategy` over two logical CPU devices; a second one would collide with it."""
    _make_two_cpus()
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
