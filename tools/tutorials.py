"""Run the tutorials of docs/tutorials, and write into them what their commands print.

    python -m tools.tutorials              all of them; minutes
    python -m tools.tutorials NAME ...     some
    python -m tools.tutorials --fast       on tiny data, to see that they run; writes nothing

A page's blocks of `sh` and `python` run in order in one folder. What a block prints becomes the
block of `text` after it, and pictures that the page shows come from that folder into docs/pictures.
"""

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from zoo.atomic import write_atomic

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "tutorials"
PICTURES = ROOT / "docs" / "pictures"
_BLOCK = re.compile(
    r"^```(sh|python)\n(.*?)^```\n(?:\n```text\n.*?^```\n)?", re.DOTALL | re.MULTILINE
)
_MADE = re.compile(r"^<!-- made by -->\n(?:\n?\*Made by .*?\*\n)?", re.DOTALL | re.MULTILINE)
_PICTURE = re.compile(r"!\[[^\]]*\]\((?:[^)]*/)?([^)/]+\.png)\)")
# The time and the process of a line of the log.
_LOGGED = re.compile(r"^[IWE]\d{4} [\d:.]+ +\d+ (?=\S+\.py:\d+\])")
# What makes a run a matter of seconds, in place of what a page says.
_FAST = {
    r"--steps=\d+": "--steps=2 --set=crop=32",
    r"--slices=\d+": "--slices=10 --size=128",
    r"--patients=\d+": "--patients=3",
    r"--test_patients=\d+": "--test_patients=1",
    r"patient12": "patient03",
}
# What a user's shell finds: this Python, this checkout's `zoo`, and errors that end the block.
_SHELL = """set -e
python() {{ {python} "$@"; }}
zoo() {{ {python} -m zoo "$@"; }}
"""


def run(page: Path, folder: Path, fast: bool = False) -> str:
    """The page's text with what its blocks printed, run in `folder`.

    Raises:
        RuntimeError: for a block that fails, with what it printed.
    """
    (folder / "examples").symlink_to(ROOT / "examples")
    text, before = page.read_text(encoding="utf-8"), _processor_minutes()

    def with_output(block: re.Match) -> str:
        kind, code = block.groups()
        printed = execute(kind, _faster(code) if fast else code, folder)
        shown = f"\n```text\n{printed}\n```\n" if printed else ""
        return f"```{kind}\n{code}```\n{shown}"

    text = _BLOCK.sub(with_output, text)
    # Other work on the machine does not change this.
    minutes = max(1, round(_processor_minutes() - before))
    made = f"*Made by `make tutorials` in {minutes} min of processor time, on {machine()}.*"
    return _MADE.sub(lambda _: f"<!-- made by -->\n\n{made}\n", text)


def execute(kind: str, code: str, folder: Path) -> str:
    """What a block of `sh` or `python` prints, in one line's order.

    Raises:
        RuntimeError: where it fails.
    """
    shell = _SHELL.format(python=sys.executable)
    command = ["bash", "-c", shell + code] if kind == "sh" else [sys.executable, "-c", code]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    settings = {"PYTHONPATH": path, "TFDS_DATA_DIR": str(folder / "data")}
    settings |= {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{code}\nended with {done.returncode}:\n{done.stdout}")
    lines = done.stdout.replace(f"{folder}/", "").splitlines()
    return "\n".join(_LOGGED.sub("", line.rstrip()) for line in lines).strip()


def machine() -> str:
    """The processor and its cores, in words."""
    cpus = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    (name,) = re.findall(r"^model name\s*: (.*)$", cpus, re.MULTILINE)[:1] or ["a processor"]
    width = "AVX-512" if " avx512f" in cpus else "AVX2"
    return f"{len(os.sched_getaffinity(0))} cores of {name.strip()} ({width}), no GPU"


def _processor_minutes() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) / 60


def _faster(code: str) -> str:
    for pattern, replacement in _FAST.items():
        code = re.sub(pattern, replacement, code)
    return code


def main(arguments: list[str]) -> None:
    """Run pages, and write what they printed unless `--fast` is asked for."""
    fast = "--fast" in arguments
    names = [name for name in arguments if name != "--fast"]
    for page in [PAGES / f"{name}.md" for name in names] or sorted(PAGES.glob("*.md")):
        with tempfile.TemporaryDirectory() as folder:
            print(f"{page.relative_to(ROOT)} ...", flush=True)
            text = run(page, Path(folder), fast)
            pictures = _PICTURE.findall(text)
            missing = [name for name in pictures if not Path(folder, name).exists()]
            if missing:
                raise RuntimeError(f"{page.name}: expected {missing[0]}. Received: no such file")
            if fast:
                continue
            for name in pictures:
                shutil.copy(Path(folder, name), PICTURES / name)
            write_atomic(page, text.encode())


if __name__ == "__main__":
    main(sys.argv[1:])
