"""Runs that are trained by the command that a user would type."""

import time
from pathlib import Path

from zoo import command_line


def train(run: Path, arguments: list[str]) -> None:
    """Train into a run folder, and say the command and the processor time that it took.

    Raises:
        SystemExit: where training failed, which has said why.
    """
    command = ["train", *arguments, f"--workdir={run}"]
    print(f"$ zoo {' '.join(command)}", flush=True)
    started = time.process_time()
    if command_line.main(["zoo", *command]):
        raise SystemExit(f"{run}: was not trained.")
    print(f"{(time.process_time() - started) / 60:.1f} minutes of processor time", flush=True)
