"""`serve`: a model behind TF Serving's interfaces."""

from pathlib import Path

from zoo.commands import asked
from zoo.commands.asked import FLAGS, UsageError


def serve() -> int:
    entry = asked.trained()
    try:
        from zoo.serving.server import run, served
    except ImportError as error:
        raise UsageError(
            f"serve needs the extra `serve`: pip install 'zoo-medical[serve]' ({error})"
        ) from error

    model = served.Served(asked.built(entry), Path(entry.name).name)
    largest = FLAGS.batch_size or 4
    run.run(model, FLAGS.host, FLAGS.port, FLAGS.grpc_port, largest, FLAGS.body_mib * 2**20)
    return 0
