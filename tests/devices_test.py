"""Which precision a machine's devices get, and what is set before they are used."""

import pytest
import tensorflow as tf

from zoo import devices


@pytest.fixture
def gpus(monkeypatch):
    """Take GPUs of these compute capabilities for those of this machine."""

    def there(*capabilities):
        found = [tf.config.PhysicalDevice(f"GPU:{n}", "GPU") for n in range(len(capabilities))]
        details = {
            gpu.name: {"compute_capability": each} if each else {}
            for gpu, each in zip(found, capabilities, strict=True)
        }
        listed = {"GPU": found}
        monkeypatch.setattr(
            tf.config, "list_physical_devices", lambda kind=None: listed.get(kind, [])
        )
        monkeypatch.setattr(
            tf.config.experimental, "get_device_details", lambda gpu: details[gpu.name]
        )

    return there


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ([(8, 0)], "bfloat16"),
        ([(9, 0), (8, 6)], "bfloat16"),
        ([(7, 5)], "float16"),  # T4
        ([(7, 0)], "float16"),  # V100
        ([(8, 0), (7, 5)], "float16"),
        ([(6, 1)], "float32"),
        ([(7, 5), (5, 2)], "float32"),
        ([None], "float32"),  # one that does not say
    ],
)
def test_auto_takes_what_the_oldest_gpu_is_fast_at(capabilities, precision, gpus):
    gpus(*capabilities)
    assert devices.resolve_precision("auto") == precision
    assert devices.resolve_precision("float16") == "float16"
    assert precision in devices.POLICIES


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        ("avx512f amx_bf16", "bfloat16"),
        ("avx512f avx512_bf16 amx_tile", "float32"),
        ("avx2 avx512f avx512_vnni", "float32"),
        (None, "float32"),  # not Linux
    ],
)
def test_auto_takes_bfloat16_where_the_cpu_multiplies_it(
    flags, precision, gpus, monkeypatch, tmp_path
):
    gpus()
    if flags:
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: fpu {flags}\n\nbugs :\n")
    monkeypatch.setattr(devices, "_CPU", tmp_path / "cpuinfo")
    assert devices.resolve_precision("auto") == precision


@pytest.mark.parametrize("begun", [False, True])
def test_gpu_memory_grows_and_float32_stays_exact(begun, gpus, monkeypatch):
    gpus((8, 0), (8, 0))
    grown = []

    def set_memory_growth(gpu, enable):
        if begun:
            raise RuntimeError("Physical devices cannot be modified after being initialized")
        grown.append((gpu.name, enable))

    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", set_memory_growth)
    tf.config.experimental.enable_tensor_float_32_execution(True)
    devices.prepare()
    assert grown == ([] if begun else [("GPU:0", True), ("GPU:1", True)])
    assert not tf.config.experimental.tensor_float_32_execution_enabled()


@pytest.mark.parametrize("strategy", ["auto", "one"])
def test_a_strategy_is_made_after_the_settings(strategy, monkeypatch):
    made = []
    monkeypatch.setattr(devices, "prepare", lambda: made.append(strategy))
    devices.make_strategy(strategy)
    assert made == [strategy]


def test_speed_is_measured_in_every_precision():
    assert all(devices.device_speed(precision) > 0 for precision in devices.POLICIES)
