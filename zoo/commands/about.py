"""`list` and `describe`."""

import json
from typing import Any

from zoo import registry
from zoo.commands import asked
from zoo.commands.asked import FLAGS, UsageError

_OWN = ("folder", "name")  # fields that the registry adds to what a `registry.yaml` says


def list_names() -> int:
    for flag, field in (("task", "tasks"), ("modality", "modality")):
        entries = [*registry.index()["models"].values(), *registry.index()["datasets"].values()]
        known = {value for entry in entries for value in entry.get(field, [])} - {"any"}
        wanted = getattr(FLAGS, flag)
        if wanted is not None and wanted not in known:
            raise registry.UnknownName(wanted, sorted(known), flag)
    shown: dict[str, dict[str, Any]] = {}
    for section in registry.SECTIONS:
        rows = registry.index()[section]
        shown[section] = {}
        for name in registry.names(section, FLAGS.task, FLAGS.modality):
            shown[section][name] = {k: v for k, v in rows[name].items() if k not in _OWN}
    if FLAGS.json:
        print(json.dumps(shown, indent=2))
        return 0
    for section, rows in shown.items():
        print(section.capitalize())
        for name, fields in rows.items():
            print(f"  {name:<20} {fields['summary']}")
        if not rows:
            print("  (none)")
    return 0


def describe() -> int:
    if FLAGS.model and FLAGS.dataset:
        raise UsageError(
            "describe: expected one name, a model's or a data set's. "
            f"Received: {FLAGS.model} and {FLAGS.dataset}"
        )
    # A data set has a card.
    name = FLAGS.model or FLAGS.dataset
    if not name:
        raise UsageError("describe needs a name, such as `describe pix2pix`.")
    if name.split("/")[0] in registry.index()["datasets"]:
        from zoo.data import card

        fields = card.card(name, asked.path("data_dir"))
        print(json.dumps(fields, indent=2) if FLAGS.json else card.text(fields))
        return 0
    # A model, or a pretrained one: its fields, its documentation, its recipes side by side.
    described = registry.describe(name)
    if FLAGS.json:
        print(json.dumps(described, indent=2))
        return 0
    documentation = described.pop("documentation", None)
    recipes = described.pop("recipes", None)
    for field, value in described.items():
        print(f"{field}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
    if documentation:
        print(f"\n{documentation.strip()}")
    if recipes:
        print(f"\n{'recipe field':<24}{'paper':<22}{'good':<22}small")
        for field, value in recipes["paper"].items():
            others = [recipes[preset][field] for preset in ("good", "small")]
            good, small = ["" if other == value else other for other in others]
            print(f"{field:<24}{value!s:<22}{good!s:<22}{small}".rstrip())
    return 0
