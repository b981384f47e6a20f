"""Side by side with peers: `make bench` writes `docs/benchmarks.md`."""
