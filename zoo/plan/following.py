"""`train` on a user's folder by a plan: the entry to train."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

from zoo import registry, run
from zoo.errors import contained, printable, reason
from zoo.plan import planning
from zoo.recipe import Recipe
from zoo.registry import Entry

PRESET = "plan"  # of a run that follows one, in its `run.json`


def entry(
    name: str,
    dataset: str,
    workdir: Path,
    path: Path,
    *,
    anew: bool = False,
    minutes: float = 0,
    overrides: dict[str, Any] | None = None,
    assignments: list[str] | None = None,
) -> tuple[Entry, dict[str, Any] | None]:
    """The entry to train, and the plan that its recipe comes from, which is shown.

    A run that is there already keeps the recipe that it began with: nothing is planned, and the
    plan is None. So it is where no plan can be made, which is said; the recipe is the small one.

    Args:
        name: of the model.
        dataset: "folder".
        workdir: the run folder.
        path: the user's files.
        anew: whether a run that is there does not count.
        minutes: that training may take; 0 takes the default.
        overrides, assignments: fields of the recipe that are given, and win.

    Raises:
        ValueError: for fields that the recipe does not have, and a damaged `run.json`.
    """
    stored = run.read(workdir) if run.exists(workdir) and not anew else {}
    preset, fields = stored.get("preset"), stored.get("recipe")
    if preset == PRESET and stored["model"] == name and fields is not None:
        begun = registry.lookup(name, dataset, "small", overrides, assignments)
        changes = begun.recipe.parse(assignments or []) | (overrides or {})
        recipe: Recipe = begun.recipe.from_dict(fields).changed(**changes)
        return dataclasses.replace(begun, preset=PRESET, recipe=recipe), None
    if preset is not None and preset != PRESET:  # of before, or of a plan that failed
        return registry.lookup(name, dataset, preset, overrides, assignments), None
    small = registry.lookup(name, dataset, "small", overrides, assignments)
    if "TF_CONFIG" in os.environ:
        print("Several workers, each of another speed, follow no plan: the small recipe is used.")
        return small, None
    try:
        made = shown(path, name, minutes, overrides, assignments)
    except (ValueError, OSError) as error:
        print(f"No plan can be made, and the small recipe is used: {reason(error)}", flush=True)
        return small, None
    begun = registry.lookup(name, dataset, made.preset.value, made.values())
    return dataclasses.replace(begun, preset=PRESET), made.to_dict()


def shown(
    path: Path,
    model: str,
    minutes: float,
    overrides: dict[str, Any] | None,
    assignments: list[str] | None,
) -> planning.Plan:
    """A plan as `planning.plan` makes it: its table printed, its warnings on standard error."""
    with contained("plan: cannot read these files"):
        made = planning.plan(
            path, model=model, minutes=minutes, overrides=overrides, assignments=assignments
        )
    print(printable_lines(made.table()), flush=True)
    for text in made.warnings:
        print(printable(f"warning: {text}"), file=sys.stderr, flush=True)
    return made


def printable_lines(text: str) -> str:
    """Lines that any terminal can show."""
    return "\n".join(map(printable, text.splitlines()))
