"""The examples of a source on Apache Beam; imported only where a build asks for it."""

import json

import apache_beam as beam

from zoo_datasets.cases import Case, SourceConfig, bad_file, read_case


def examples(config: SourceConfig, cases: list[Case], bad_folder: str) -> beam.PTransform:
    """A transform of no input to (key, example) pairs.

    The cases are the elements, shuffled over the workers; a worker holds one case at a time. Bad
    files are counted (`bad_files` among the pipeline's metrics) and written into `bad_folder`, a
    line each.
    """

    @beam.ptransform_fn
    def read(pipeline):
        results = (
            pipeline
            | "Cases" >> beam.Create(cases)
            | "Share" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(_Read(config)).with_outputs("bad", main="examples")
        )
        _ = results.bad | "Bad" >> beam.io.WriteToText(f"{bad_folder}/part", skip_if_empty=True)
        return results.examples

    return read()


class _Read(beam.DoFn):
    def __init__(self, config: SourceConfig):
        self._config = config
        self._count = beam.metrics.Metrics.counter("zoo_datasets", "bad_files")

    def process(self, case: Case):
        found = read_case(case, self._config)
        if isinstance(found, Exception):
            self._count.inc()
            yield beam.pvalue.TaggedOutput("bad", json.dumps(bad_file(case, found)))
        else:
            yield from found
