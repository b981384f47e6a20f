"""Side by side with peers: `make bench` writes `docs/benchmarks.md`."""

import contextlib

# Triton, which comes with PyTorch for GPUs, crashes where TensorFlow was imported before it.
with contextlib.suppress(ImportError):
    import triton  # type: ignore[import-not-found]  # noqa: F401
