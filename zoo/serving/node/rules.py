"""The rule file of a DICOM node: which series goes through which model, and where to.

ae_title: ZOO                     # of the node itself
quiet_seconds: 30                 # without a new image, after which a series is complete
accept_from: [SCANNER1]           # AE titles that may send; left out: all
destinations:
  archive: {ae_title: ORTHANC, host: 127.0.0.1, port: 4242}
rules:                            # the first that fits counts
  - {modality: CT, description: "*low dose*", model: encoder_decoder_ldct, send_to: archive}
  - {modality: MR, model: runs/mine, send_to: archive, uncertainty: true}   # half-widths too
"""

import dataclasses
import fnmatch
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from zoo.errors import contained, short

_MOST_BYTES = 2**20  # of a rule file


@dataclasses.dataclass(frozen=True)
class Destination:
    """Where derived series are sent: an application entity."""

    ae_title: str
    host: str
    port: int


@dataclasses.dataclass(frozen=True)
class Rule:
    """What happens to series of a modality whose SeriesDescription is like a pattern.

    Attributes:
        modality: DICOM's code, such as "CT".
        model: a pretrained name, a run's folder or hf:owner/name.
        send_to: the name of a destination.
        description: a pattern of the shell; upper and lower case are one.
        uncertainty: whether half-widths, as a Parametric Map, go with the derived series; the same
            in all rules of a model.
    """

    modality: str
    model: str
    send_to: str
    description: str = "*"
    uncertainty: bool = False

    def fits(self, modality: str, description: str) -> bool:
        """Whether it is meant for such a series."""
        pattern = self.description.casefold()
        return modality == self.modality and fnmatch.fnmatchcase(description.casefold(), pattern)


@dataclasses.dataclass(frozen=True)
class Rules:
    """A rule file.

    Attributes:
        rules: in their order.
        destinations: by name.
        ae_title: of the node itself.
        quiet_seconds: without a new image, after which a series is complete.
        accept_from: AE titles that may send; of none all may.
    """

    rules: tuple[Rule, ...]
    destinations: dict[str, Destination]
    ae_title: str = "ZOO"
    quiet_seconds: float = 30.0
    accept_from: tuple[str, ...] = ()

    def find(self, modality: str, description: str) -> Rule | None:
        """The first rule that fits a series."""
        return next((rule for rule in self.rules if rule.fits(modality, description)), None)


def read(path: Path) -> Rules:
    """The rules of a YAML file.

    Raises:
        ValueError: for what is no such file; names the field.
        OSError: where it cannot be read.
    """
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{path}: expected up to {_MOST_BYTES} bytes")
    try:
        with contained("expected YAML. Received"):
            told = yaml.safe_load(path.read_text(encoding="utf-8"))
        return _rules(told)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _rules(told: Any) -> Rules:
    fields = _fields(told, "", Rules)
    destinations = _destinations(fields["destinations"])
    _check(fields["rules"], list, "rules", "a list")
    rules: list[Rule] = []
    for number, entry in enumerate(fields["rules"], 1):
        rule = Rule(**_fields(entry, f"rules: {number}: ", Rule))
        for key in ("modality", "model", "send_to", "description"):
            _check(getattr(rule, key), str, f"rules: {number}: {key}", "a text")
        if not isinstance(rule.uncertainty, bool):
            where, received = f"rules: {number}: uncertainty", short(rule.uncertainty)
            raise ValueError(f"{where}: expected true or false. Received: {received}")
        if rule.send_to not in destinations:
            where, known = f"rules: {number}: send_to", ", ".join(destinations)
            raise ValueError(f"{where}: expected {known}. Received: {rule.send_to}")
        if any(r.model == rule.model and r.uncertainty != rule.uncertainty for r in rules):
            where = f"rules: {number}: uncertainty"
            raise ValueError(f"{where}: expected the same in all rules of {rule.model}")
        rules.append(rule)
    # The node's own fields, which have defaults.
    found = Rules(**fields | {"rules": tuple(rules), "destinations": destinations})
    _check_title(found.ae_title, "ae_title")
    quiet = found.quiet_seconds
    if isinstance(quiet, bool) or not isinstance(quiet, int | float) or not 0 < quiet <= 86400:
        raise ValueError(f"quiet_seconds: expected above 0, up to a day. Received: {short(quiet)}")
    _check(found.accept_from, list | tuple, "accept_from", "a list of AE titles")
    for title in found.accept_from:
        _check_title(title, "accept_from")
    return dataclasses.replace(found, accept_from=tuple(found.accept_from))


def _destinations(told: Any) -> dict[str, Destination]:
    _check(told, dict, "destinations", "names")
    found = {}
    for name, entry in told.items():
        where = f"destinations: {name}: "
        destination = Destination(**_fields(entry, where, Destination))
        _check_title(destination.ae_title, f"{where}ae_title")
        _check(destination.host, str, f"{where}host", "a name or an address")
        port = destination.port
        if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
            raise ValueError(f"{where}port: expected 1 to 65535. Received: {short(port)}")
        found[str(name)] = destination
    return found


def _fields(told: Any, where: str, kind: Any) -> dict[str, Any]:
    """A mapping with the fields of a dataclass, all that have no default among them."""
    known = dataclasses.fields(kind)
    names = [field.name for field in known]
    wanted = f"{where}expected the fields {', '.join(names)}"
    if not isinstance(told, Mapping):
        raise ValueError(f"{wanted}. Received: {short(told)}")
    unknown = [key for key in told if key not in names]
    needed = [field.name for field in known if field.default is dataclasses.MISSING]
    missing = [name for name in needed if not told.get(name)]
    if unknown or missing:
        received = f"{unknown[0]!r}" if unknown else f"no {missing[0]}"
        raise ValueError(f"{wanted}. Received: {received}")
    return dict(told)


def _check(value: Any, kind: Any, where: str, wanted: str) -> None:
    if not isinstance(value, kind) or not value and value != ():
        raise ValueError(f"{where}: expected {wanted}. Received: {short(value)}")


def _check_title(value: Any, where: str) -> None:
    """An AE title: 1 to 16 characters (PS3.5 6.2)."""
    good = isinstance(value, str) and value.isascii() and value.isprintable()
    if not good or not 0 < len(value.strip()) <= 16 or "\\" in value:
        raise ValueError(f"{where}: expected 1 to 16 letters. Received: {short(value)}")
