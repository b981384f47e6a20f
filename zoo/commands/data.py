"""`prepare` and `preview`."""

import sys
from pathlib import Path

from zoo.commands import asked
from zoo.commands.asked import FLAGS, UsageError


def prepare() -> int:
    (dataset,) = asked.need("dataset")
    from zoo.data import prepare

    # The data set, only described so far.
    builder = prepare.load_builder(
        dataset, asked.path("data_dir"), _plain_recipe(), asked.path("input"), prepare=False
    )
    config = builder.builder_config
    manual = asked.path("manual_dir") or prepare.manual_dir(builder)
    # Its files, where they are fetched by us.
    if FLAGS.fetch:
        if not getattr(config, "idc", ""):
            raise UsageError(
                "fetch: expected a data set of the Imaging Data Commons; `describe` tells how to "
                f"get the others. Received: {dataset}"
            )
        from zoo_datasets.publishers import idc

        idc.fetch(config.idc, manual)
    # Its records.
    options = asked.beam_options()
    builder = prepare.prepare_builder(builder, manual, options)
    counts = ", ".join(f"{n} {s.num_examples}" for n, s in builder.info.splits.items())
    print(f"{builder.info.full_name}: {counts} images in {builder.data_dir}")
    left_out = prepare.bad_files(builder)
    if left_out:
        print(f"warning: {left_out}", file=sys.stderr)
    # a publisher's data may have a few such cases; of the user's own files each one counts
    return 1 if left_out and builder.name == "folder" else 0


def preview() -> int:
    dataset, output = asked.need("dataset", "output")
    from zoo.data import prepare, preview

    if Path(output).suffix.lower() != ".png":
        raise UsageError(f"output: expected a file name that ends in .png. Received: {output}")
    builder = prepare.load_builder(
        dataset, asked.path("data_dir"), _plain_recipe(), asked.path("input")
    )
    shown = preview.save(builder, Path(output).expanduser())
    print(f"Wrote {shown} examples of {builder.info.full_name} to {output}")
    return 0


def _plain_recipe():
    """The fields of --set that a data set looks at, without a model."""
    from zoo.recipe import Recipe

    try:
        return Recipe.preset("paper", **Recipe.parse(FLAGS.set))
    except ValueError as error:
        raise UsageError(str(error)) from error
