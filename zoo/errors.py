"""What goes wrong with a file, in one line. Imports nothing: `list` answers at once."""

import contextlib
from collections.abc import Iterator
from typing import Any


def reason(error: BaseException) -> str:
    """What an exception says, in one line of at most 500 characters without a traceback.

    Its type where it says nothing.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, MemoryError) and not lines:
        return "more memory is asked for than there is"
    if not lines:
        return type(error).__name__
    plain = [line for line in lines if "Traceback (most recent" not in line] or lines
    text = " ".join(plain[: 2 if plain[0].endswith(":") else 1])
    text = f"{type(error).__name__}: {text}" if isinstance(error, KeyError) else text
    return text if len(text) <= 500 else f"{text[:497]}..."


def printable(text: str) -> str:
    """One line that any terminal can show, whatever bytes are in a file's name."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@contextlib.contextmanager
def contained(what: str) -> Iterator[None]:
    """Whatever a damaged file makes a reader raise, as one ValueError: "what: reason".

    A reader's own ValueError of one line is not changed. Decoders written in Rust panic with a
    BaseException, and a hostile file can ask for more memory or deeper recursion than there is.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except ValueError as error:
        text = reason(error)
        if text == str(error):
            raise
        # of one line that was too long, or of several
        is_cut = text.endswith("...") and "\n" not in str(error)
        raise ValueError(text if is_cut else f"{what}: {text}") from error
    except BaseException as error:
        raise ValueError(f"{what}: {reason(error)}") from error


def short(value: Any) -> str:
    """The beginning of what was received."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
