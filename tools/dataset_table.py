"""Writes the table of docs/datasets.md from the registry: `python -m tools.dataset_table`."""

import importlib
import re
from pathlib import Path

from zoo import registry
from zoo.atomic import write_atomic

PAGE = Path(__file__).resolve().parent.parent / "docs" / "datasets.md"
_TABLE = re.compile(r"^\| data set \|.*\n(?:\|.*\n)+", re.MULTILINE)


def dataset_table() -> str:
    """The table of data sets, from the registry: one row each, Markdown."""
    rows = [
        "| data set | what it is | made here | from files that you downloaded |",
        "|---|---|---|---|",
    ]
    for name, fields in registry.index()["datasets"].items():
        if fields["owner"] != "zoo":
            continue
        module = importlib.import_module(f"{fields['module']}.{name}_dataset_builder")
        configs = {config.name: config for config in module.Builder.BUILDER_CONFIGS}
        if hasattr(module, "configure"):
            here, files = [], ["your own"]
        else:
            real = [n for n in fields["configs"] if getattr(configs[n], "find", None)]
            here = [f"`{n}`" for n in fields["configs"] if n not in real]
            files = [f"`{n}`" for n in real]
        summary = re.sub(r"\s+", " ", fields["summary"])
        rows.append(f"| `{name}` | {summary} | {', '.join(here)} | {', '.join(files)} |")
    return "\n".join(rows)


def with_table(page: str) -> str:
    """The page with the table that the registry gives.

    Raises:
        ValueError: for a text that has not exactly one table of data sets.
    """
    text, count = _TABLE.subn(lambda _: dataset_table() + "\n", page)
    if count != 1:
        raise ValueError(f"page: expected one table that starts | data set |. Received: {count}")
    return text


if __name__ == "__main__":
    write_atomic(PAGE, with_table(PAGE.read_text(encoding="utf-8")).encode())
