"""The absl command line: parses flags and makes one call. Imports TensorFlow only where used."""

import contextlib
import os
import sys
from typing import Any

from absl import flags, logging

from zoo import __version__, registry
from zoo.commands import (
    about,
    data,
    learning,
    predicting,
    reconstructing,
    serving,
    trusting,
    using,
)
from zoo.commands.asked import FLAGS, UsageError
from zoo.errors import reason
from zoo.flags import USED, help_text

_COMMANDS = {
    "list": about.list_names,
    "describe": about.describe,
    "prepare": data.prepare,
    "plan": learning.plan,
    "preview": data.preview,
    "train": learning.train,
    "evaluate": using.evaluate,
    "calibrate": trusting.calibrate,
    "predict": predicting.predict,
    "generate": using.generate,
    "synthesize": using.synthesize,
    "export": using.export,
    "publish": using.publish,
    "reconstruct": reconstructing.reconstruct,
    "serve": serving.serve,
    "dicom-node": serving.dicom_node,
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 failed, 2 wrong usage."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that lacks a letter shows its number
            stream.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv if argv is None else argv)
    FLAGS.unparse_flags()
    for name in FLAGS:
        FLAGS[name].unparse()
    try:
        arguments = FLAGS(["--help" if a == "-h" else a for a in arguments])[1:]
    except flags.Error as error:
        return _fail(error, 2)
    if FLAGS.version:
        print(f"zoo-medical {__version__}")
        return 0
    if FLAGS.help or not arguments or arguments == ["help"]:
        print(help_text(arguments[0] if arguments else ""))
        return 0 if FLAGS.help or arguments else 2
    command, *rest = arguments
    if command not in _COMMANDS:
        return _fail(registry.UnknownName(command, list(_COMMANDS), "command"), 2)
    if rest and command == "describe" and len(rest) == 1:
        FLAGS["model"].value = rest[0]
    elif rest:
        return _fail(f"expected one command. Received: {' '.join(arguments)}", 2)
    unused = [name for name in FLAGS if FLAGS[name].present and name not in USED[command]]
    if unused:
        used = ", ".join(f"--{name}" for name in USED[command])
        return _fail(f"{command} takes {used}. Received: --{', --'.join(unused)}", 2)
    return _run(command)


def _run(command: str) -> int:
    """A command's exit code; whatever goes wrong is said in one line."""
    try:
        if command != "list":
            _import_quietly()
        code = _COMMANDS[command]() or 0
        sys.stdout.flush()
        return code
    except (UsageError, registry.UnknownName) as error:
        return _fail(error, 2)
    except KeyboardInterrupt as error:
        return _fail(str(error) or "interrupted.", 1)
    except SystemExit:
        raise
    except BaseException as error:  # decoders written in Rust panic with one of their own
        if isinstance(error, BrokenPipeError) and error.filename is None:
            _drop_output()
            return 1  # the reader, such as `head`, has enough
        if os.environ.get("ZOO_DEBUG"):
            raise
        expected = isinstance(error, ValueError | OSError | FloatingPointError | TypeError)
        name = "" if expected else f"{type(error).__name__}: "
        hint = "" if expected else " (ZOO_DEBUG=1 shows where)"
        code = _fail(f"{name}{_one_line(error)}{hint}", 1)
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        return code


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines)
    return text if len(text) <= 2000 and "Traceback" not in text else reason(error)


def _drop_output() -> None:
    """What is still to be written goes nowhere, so that the exit is quiet."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _import_quietly() -> None:
    """Import TensorFlow without its notes on the CPU and on GPUs that are not there."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.set_verbosity(logging.ERROR)
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)  # what it writes before it reads any setting
    try:
        import tensorflow as tf
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
    tf.get_logger().setLevel("ERROR")


def _fail(error: Any, code: int) -> int:
    with contextlib.suppress(OSError):  # nobody may be listening
        print(f"error: {error}", file=sys.stderr)
        if code == 2:
            print("See: python cli.py --help", file=sys.stderr)
    return code
