"""Entry point of `verify`: parse, hand over, turn every error into one message and exit code 2."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyclopts import CycloptsError

INTERRUPTED = 130
ERROR = 2


def main() -> None:
    """Run the command line and end the process.

    The process ends without Python's teardown: unloading torch takes a quarter of a second and nothing is left to do.
    """
    import signal

    from verif.later import postpone

    postpone()
    # Idle OpenMP threads soon sleep: for long, they take the processors from whatever else runs (20 times slower), and
    # at once, each of the many small operations waits until they are awake (1.5 times slower; both measured).
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's stop ends like Ctrl-C, with what is known
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:  # the reader went away; the verdict is in the exit code
        pass
    os._exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; no exception leaves, and none becomes a verdict."""
    from cli.errors import internal
    from graphs.errors import VerifError

    try:
        return _dispatch(list(arguments))
    except VerifError as error:
        message = str(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return ERROR
    except Exception as error:
        if "--verbose" in arguments:
            import traceback

            traceback.print_exc()
        message = internal(error)
    print(message, file=sys.stderr)
    return ERROR


def _dispatch(arguments: list[str]) -> int:
    if arguments == ["--version"]:  # the parser and rich, which it prints this with, take 0.1 s
        from verif import __version__

        print(__version__)
        return 0

    from cyclopts import CycloptsError

    from cli.app import app

    if not arguments:
        arguments = ["--help"]
    # The flags of `supports` are its values: to cyclopts they would be unknown options.
    if arguments[0] == "supports" and arguments[1:] not in ([], ["--help"], ["-h"]):
        arguments = ["supports", "--", *arguments[1:]]
    try:
        command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise _usage(error) from None
    return int(command(*bound.args, **bound.kwargs) or 0)


def _usage(error: CycloptsError) -> Exception:
    """The parser's complaint in our form: one lower-case sentence, and a help line."""
    from cyclopts import MissingArgumentError, UnknownOptionError, UnusedCliTokensError

    from cli.errors import UsageError

    error.verbose = False
    called = " ".join(("verify", *(error.command_chain or ())))
    message, _, hint = str(error).strip().partition(" Did you mean ")
    message = (message[:1].lower() + message[1:]).rstrip(".").replace('"', "'")
    if isinstance(error, UnusedCliTokensError):
        message = f"too many arguments: {' '.join(error.unused_tokens or ())}"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        given = error.keyword is not None or error.argument.name in (error.root_input_tokens or ())
        message = f"{error.argument.name} needs a value" if given else f"{called} needs {error.argument.name}"
    help = f"{called} --help lists the flags"
    if hint:
        help = "did you mean '" + hint.rstrip("?").strip("\"'") + "'?"
    elif comma := re.search(r"unable to convert '(-?\d*),(\d+)' into float", message):
        help = f"decimals have a point: {comma[1] or 0}.{comma[2]}"
    return UsageError("C101" if isinstance(error, UnknownOptionError) else "C102", message, help=help)
