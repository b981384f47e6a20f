"""Runs one test file under Bazel, whose tests are programs: `run_pytest.py FILE`."""

import os
import sys

import pytest

if __name__ == "__main__":
    scratch = os.environ["TEST_TMPDIR"]
    sys.exit(pytest.main(["-p", "no:cacheprovider", f"--basetemp={scratch}/pytest", *sys.argv[1:]]))
