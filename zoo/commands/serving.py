"""`serve` and `dicom-node`: models behind TF Serving's interfaces and DICOM's."""

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.commands import asked
from zoo.commands.asked import FLAGS, UsageError

if TYPE_CHECKING:
    from zoo.registry import Entry
    from zoo.trust.limits import Limits


def serve() -> int:
    entry = asked.trained()
    try:
        from zoo.serving.server import run, served
    except ImportError as error:
        raise UsageError(
            f"serve needs the extra `serve`: pip install 'zoo-medical[serve]' ({error})"
        ) from error

    model = asked.built(entry)
    limits = _limits(entry, model)
    uncertainty = asked.servable(entry, model, alarms=limits is not None)
    name = Path(entry.name).name
    servable = served.Served(model, name, uncertainty=uncertainty, limits=limits)
    largest = FLAGS.batch_size or 4
    run.run(servable, FLAGS.host, FLAGS.port, FLAGS.grpc_port, largest, FLAGS.body_mib * 2**20)
    return 0


def _limits(entry: "Entry", model: Any) -> "Limits | None":
    """Those of the alarms, of --calibration or the model's own; None where there are none."""
    from zoo.trust import calibration

    file = asked.path("calibration")
    try:
        return calibration.limits_of(entry, model, file)
    except ValueError as error:
        if file is not None:
            raise
        print(f"note: without limits of alarms. {error}", file=sys.stderr)
        return None


def dicom_node() -> int:
    asked.need("rules", "spool")
    try:
        from zoo.serving.node import node, rules, spool
    except ImportError as error:
        raise UsageError(
            f"dicom-node needs the extra `pacs`: pip install 'zoo-medical[pacs]' ({error})"
        ) from error
    from zoo.imaging.dicom import parametric
    from zoo.inference import engines, half_widths, predict
    from zoo.inference.report import Report
    from zoo.trust import calibration
    from zoo.trust.half_width import HalfWidth

    # The models of all rules, so that what is wrong with one is said now.
    path, folder = asked.path("rules") or Path(), asked.path("spool") or Path()
    known = rules.read(path)
    tell = functools.partial(print, flush=True)
    uncertain = {rule.model for rule in known.rules if rule.uncertainty}

    if uncertain:
        parametric.require()

    @functools.cache
    def model(name: str) -> tuple[Any, HalfWidth | None, int]:
        entry = asked.lookup(name)
        if entry.weights is None:
            raise UsageError(f"rules: model: expected one with weights. Received: {name}")
        found = asked.built(entry)
        engine = engines.use(found, FLAGS.engine, tell, FLAGS.batch_size or engines.BATCH)
        widths = HalfWidth(found, calibration.of(entry, found)) if name in uncertain else None
        return found, widths, asked.batch_size(engine)

    for rule in known.rules:
        model(rule.model)

    def translate(name: str, given: Path, made: Path) -> Report:
        try:
            found, widths, batch_size = model(name)
        except UsageError as error:  # of an earlier rule file
            raise ValueError(str(error)) from error
        options: dict[str, Any] = {"batch_size": batch_size, "progress": False}
        if widths is None:
            return predict.translate(found, given, made, **options)
        return half_widths.translate(found, widths, given, made, **options)[0]

    queue = spool.Spool(folder, FLAGS.spool_gib * 2**30)
    node.run(node.Node(known, queue, translate, tell), FLAGS.host, FLAGS.dicom_port)
    queue.close()
    return 0
