"""The flags in one table: what absl parses, what each command takes, and `--help`."""

import itertools
import textwrap
from typing import Any, NamedTuple

from absl import flags

COMMANDS = {
    "list": "names of models, data sets and pretrained models",
    "describe": "all about one of them (--model or --dataset)",
    "prepare": "build a data set (--dataset); exit code 1 where files of yours were left out",
    "plan": "which model and recipe suit your files (--input), and what is wrong with them",
    "preview": "write a picture of some training images (--dataset, --output=FILE.png)",
    "train": "train a model on a data set, or go on with an interrupted run",
    "evaluate": "measure a trained model: metrics.json and report.html",
    "calibrate": "intervals that hold and alarms, of a trained model, by patients it has not seen",
    "predict": "translate DICOM, NIfTI, MetaImage, NRRD, PNG, TIFF, JPEG or NPY files",
    "generate": "write new images from a generator",
    "synthesize": "write a data set of generated images, of any size; goes on where it was stopped",
    "export": "write a SavedModel for TF Serving, or ONNX, OpenVINO, LiteRT",
    "publish": "write a model as a Hugging Face repository",
    "reconstruct": "images of sinograms or k-space, by physics: NPY or DICOM, and records.json",
    "serve": "answer requests over HTTP as TF Serving does",
    "dicom-node": "translate DICOM series that an archive sends, and send them on",
}
_TRAINED = "evaluate calibrate predict generate synthesize export publish serve"
_BUILT = "prepare preview train evaluate calibrate"
_RECIPE = f"prepare preview train {_TRAINED}"


class _Flag(NamedTuple):
    """A row of the table.

    Its value says its kind: "" is a switch, N a number, A|B a choice, FIELD=VALUE comes repeatedly.
    """

    name: str
    value: str
    commands: str  # those that look at it; to any other it is wrong usage
    text: str
    default: Any = None
    least: int = 1


_TABLE = {
    "Which model and data": [
        _Flag("model", "NAME", f"describe plan train {_TRAINED}",
              "a model, a pretrained model, or the folder of a run (~ is home)"),
        _Flag("dataset", "NAME[/CFG]", f"describe reconstruct {_RECIPE}",
              "a data set; for `folder`, --input names your files"),
        _Flag("data_dir", "DIR", f"describe reconstruct {_BUILT}",
              "where data sets are kept (default: ~/tensorflow_datasets)"),
        _Flag("workdir", "DIR", f"train {_TRAINED}",
              "the run's folder (default: runs/MODEL-DATASET)"),
        _Flag("weights", "WHICH", f"train {_TRAINED}",
              "of a run (or --init's): best (default), last, or a checkpoint's step", "best"),
        _Flag("manual_dir", "DIR", "prepare", "files that you downloaded; `describe` tells which"),
        _Flag("fetch", "", "prepare", "download them first, from the Imaging Data Commons"),
        _Flag("beam_options", "TEXT", "prepare predict",
              'build on Apache Beam, "--runner=DirectRunner …"; predict: more of --runner'),
        _Flag("task", "NAME", "list", "only what serves this task, such as denoising"),
        _Flag("modality", "CODE", "list", "only what serves this modality, such as CT"),
        _Flag("json", "", "list describe", "as JSON"),
    ],
    "How to train": [
        _Flag("preset", "auto|paper|good|small", "train",
              "good: an evening on a GPU; small: minutes; auto: good on a GPU or TPU, else "
              "small; for `folder` what `plan` says", "auto"),
        _Flag("minutes", "N", "plan train",
              "that training by a plan may take (default 20; 180 on an accelerator)"),
        _Flag("steps", "N", "plan train", "optimisation steps of the whole run, growing included"),
        _Flag("batch_size", "N", "plan train predict serve dicom-node",
              "images in a step, over all replicas; predict and servers: images at once"),
        _Flag("seed", "N", f"plan train reconstruct {_TRAINED}",
              "of weights, data order, augmentation and noise (default 0)", None, 0),
        _Flag("precision", "auto|float32|bfloat16|float16", f"plan train {_TRAINED}",
              "what the network computes in", "auto"),
        _Flag("fold", "K/N", "train",
              "leave out the K-th of N parts of the patients, and validate on it"),
        _Flag("strategy", "auto|one|mirrored|multi_worker|tpu", "train",
              "which devices share a step", "auto"),
        _Flag("resume", "auto|must|never", "train",
              "must needs a checkpoint; never moves the run that is there aside", "auto"),
        _Flag("init", "NAME", "train",
              "weights to start from: pretrained, a run's, or a .weights.h5 file"),
        _Flag("set", "FIELD=VALUE", f"plan {_RECIPE}",
              "any other field of the recipe (repeatable); `describe` lists them"),
    ],
    "What goes in and out": [
        _Flag("input", "PATH", f"plan {_BUILT} predict reconstruct",
              "file or folder to read; predict: also dicomweb://…"),
        _Flag("output", "PATH",
              "plan preview evaluate calibrate predict generate synthesize export reconstruct",
              "folder to write; plan, calibrate: a file (default plan.json, and into the run); "
              "predict: also dicomweb://…"),
        _Flag("to", "DIR", "publish", "folder of the repository, new or empty"),
        _Flag("engine", "auto|keras|openvino", "predict dicom-node",
              "what runs the network; auto takes OpenVINO on a CPU where it is installed, has more "
              "than 8 slices to do, and answers the same", "auto"),
        _Flag("format", "saved_model|onnx|openvino|litert", "export",
              "what is written (default saved_model)", "saved_model"),
        _Flag("int8", "PATH", "export",
              "images to calibrate on: a network of int8 (not of saved_model)"),
        _Flag("int8_loss", "PERCENT", "export",
              "of the window that int8 may lose, else it is refused (default 0.5)", "0.5"),
        _Flag("deidentify", "", "predict",
              "remove identifying DICOM attributes (PS3.15 basic profile)"),
        _Flag("manifest", "FILE", "predict",
              "what is done; with one that is there the run goes on where it was stopped"),
        _Flag("workers", "N", "predict", "processes that share the series and files"),
        _Flag("runner", "NAME", "predict",
              "of Apache Beam, which shares them: DirectRunner, DataflowRunner …"),
        _Flag("part", "K/N", "predict synthesize",
              "do the K-th of N parts alone; the others may run elsewhere"),
        _Flag("bids", "SUFFIX[:SUFFIX]", "predict",
              "NIfTI of this suffix in a BIDS dataset to derivatives of that one, as T1w:T2w"),
        _Flag("overwrite", "", "predict generate reconstruct", "replace files that are there"),
        _Flag("dicom", "", "reconstruct", "CT as DICOM too, in HU, of no stated patient"),
        _Flag("tta", "", "evaluate calibrate predict",
              "mean over mirror images and turns as in training"),
        _Flag("ensemble", "NAME,NAME", "evaluate calibrate predict",
              "the mean of these models or runs (no --model)"),
        _Flag("split", "NAME", "evaluate calibrate reconstruct",
              "train, validation or test (default test; calibrate: validation)", "test"),
        _Flag("limit", "N", "evaluate reconstruct", "the first N images only"),
        _Flag("count", "N", "generate synthesize", "how many images (default 16)", 16),
        _Flag("files", "png|dicom|tfds", "synthesize", "what is written (default png)", "png"),
        _Flag("label", "NAME", "generate synthesize",
              "their class, of a conditional model (default: all in turn)"),
    ],
    "How sure it is": [
        _Flag("uncertainty", "", "predict",
              "half-widths of intervals beside the output, of a model that was calibrated"),
        _Flag("lesions", "", "evaluate",
              "put lesions into the inputs: how many are lost or invented, and detected"),
        _Flag("report", "DIR", "evaluate predict",
              "alarms: alarms.json, alarms.html and images for TensorBoard (docs/trust.md)"),
        _Flag("segmentation", "PATH", "calibrate evaluate predict",
              "label maps of the inputs, by their names: an alarm where the output loses one"),
        _Flag("explain", "ROW,COLUMN[,RADIUS]", "predict",
              "where a region of a single image's output comes from: NAME_explained.png and .json"),
        _Flag("strict", "", "evaluate predict", "exit with 3, all written, at an alarm"),
        _Flag("calibration", "FILE", "evaluate predict export serve",
              "that calibrate wrote (default: the run's own)"),
        _Flag("spread", "auto|quantiles|dropout|views|answers|none", "calibrate",
              "what says where errors are: quantile heads, dropout, mirror images and turns, or "
              "the answers of --tta and --ensemble; none: alarms alone (docs/trust.md)", "auto"),
        _Flag("alpha", "SHARE", "calibrate",
              "of a patient's pixels that intervals may miss (default 0.1)", "0.1"),
        _Flag("delta", "CHANCE", "calibrate",
              "that the patients mislead, and more is missed (default 0.1)", "0.1"),
    ],
    "How to reconstruct": [
        _Flag("method", "NAME", "reconstruct",
              "fbp, zero_filled, tv (default), pnp, dip, adversarial, or a model: pretrained or of "
              "a run", "tv"),
        _Flag("lam", "RULE", "reconstruct",
              "weight of tv, pnp, or a model's image: a number, sure, holdout or discrepancy; of "
              "adversarial a number (docs/reconstruction.md)"),
        _Flag("denoiser", "NAME", "reconstruct",
              "of pnp: a pretrained model or the folder of a run (default encoder_decoder_ldct)"),
        _Flag("critic", "NAME", "reconstruct",
              "of adversarial: the folder of a run of critic, or a pretrained one"),
        _Flag("stop", "RULE", "reconstruct",
              "of dip and adversarial: discrepancy, holdout or (dip) variance says when it stops"),
        _Flag("iterations", "N", "reconstruct", "of a method that iterates, at most"),
        _Flag("photons", "PHOTONS", "reconstruct", "of a ray before the object: the noise of CT"),
        _Flag("sigma", "SIGMA", "reconstruct",
              "or the noise's standard deviation; data: as the data set knows it"),
    ],
    "How to serve": [
        _Flag("host", "ADDRESS", "serve dicom-node",
              "to listen on (default 127.0.0.1: this machine alone)", "127.0.0.1"),
        _Flag("port", "N", "serve", "of REST (default 8501; 0 takes a free one)", 8501, 0),
        _Flag("grpc_port", "N", "serve", "of gRPC (default 0: none)", 0, 0),
        _Flag("body_mib", "N", "serve", "MiB that a request may have (default 256)", 256),
        _Flag("rules", "FILE", "dicom-node", "which series go through which model, and where to"),
        _Flag("spool", "DIR", "dicom-node", "the queue, kept when the node ends in any way"),
        _Flag("spool_gib", "N", "dicom-node", "GiB that it may hold (default 20)", 20),
        _Flag("dicom_port", "N", "dicom-node",
              "of C-STORE and C-ECHO (default 11112; 0 takes a free one)", 11112, 0),
    ],
}  # fmt: skip
_ALL = list(itertools.chain.from_iterable(_TABLE.values()))
USED: dict[str, list[str]] = {name: [] for name in COMMANDS}  # the flags of each command
for _flag in _ALL:
    for _command in _flag.commands.split():
        USED[_command].append(_flag.name)

_EXAMPLES = """\
Medical image translation: train, evaluate, predict, export, by name.

Examples
  python cli.py list
  python cli.py --model=pix2pix --dataset=ldct train
  python cli.py --model=pggan --dataset=mammo --steps=500 train
  python cli.py --model=pix2pix --dataset=ldct evaluate
  python cli.py --model=pix2pix_ldct --input=DICOM_FOLDER --output=OUT predict
  python cli.py --model=runs/pggan-mammo --output=OUT generate
  python cli.py --model=pix2pix_ldct --output=served/ldct export
  python cli.py --model=pix2pix --dataset=folder --input=MY_FILES train
  python cli.py --init=pix2pix_ldct --dataset=folder --input=MY_FILES --steps=500 train
"""


_END = "--version says which one this is. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 --strict."


def help_text(command: str = "") -> str:
    """What `--help` prints: examples and commands; behind a command, its flags."""
    if command not in COMMANDS:
        lines = [_EXAMPLES, "Commands (python cli.py COMMAND --help lists what each takes)"]
        lines += [f"  {name:<12}{text}" for name, text in COMMANDS.items()]
        return "\n".join([*lines, "", _END])
    lines = [f"{command}: {COMMANDS[command]}"]
    for title, rows in _TABLE.items():
        taken = [flag for flag in rows if command in flag.commands.split()]
        if taken:
            lines += ["", title]
        for flag in taken:
            lines += _help_lines(flag)
    return "\n".join([*lines, "", _END])


def _help_lines(flag: _Flag) -> list[str]:
    """A flag, and beside it its text."""
    shown = f"  --{flag.name}={flag.value}" if flag.value else f"  --{flag.name}"
    beside = textwrap.wrap(flag.text, 68)
    if len(shown) > 22:  # such as a long choice: the text stands below
        return [shown, *(f"{'':<24}{line}" for line in beside)]
    return [f"{shown:<24}{beside[0]}", *(f"{'':<24}{line}" for line in beside[1:])]


def define() -> flags.FlagValues:
    """The table as absl's flags, before or after the command."""
    values = flags.FlagValues()
    for flag in _ALL:
        if not flag.value:
            flags.DEFINE_boolean(flag.name, False, flag.text, flag_values=values)
        elif flag.value == "N":
            flags.DEFINE_integer(
                flag.name, flag.default, flag.text, lower_bound=flag.least, flag_values=values
            )
        elif "|" in flag.value:
            choices = flag.value.split("|")
            flags.DEFINE_enum(flag.name, flag.default, choices, flag.text, flag_values=values)
        elif flag.value == "FIELD=VALUE":
            flags.DEFINE_multi_string(flag.name, [], flag.text, flag_values=values)
        else:
            flags.DEFINE_string(flag.name, flag.default, flag.text, flag_values=values)
    for name in ("help", "version"):
        flags.DEFINE_boolean(name, False, name, flag_values=values)
    values.set_gnu_getopt(True)
    return values
