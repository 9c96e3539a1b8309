"""Progress on stderr: a live line on a terminal, plain lines with --verbose, else nothing."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from cli.options import Options

if TYPE_CHECKING:
    from rich.live import Live

    from verif.bab import Progress
    from verif.lipschitz import Lipschitz

Watch = Callable[["Progress"], None]
_Show = Callable[[str, float], None]  # a text, and the seconds so far
_EVERY = 10.0  # seconds between plain lines
_AT_ONCE = 0.3  # what is decided within these seconds shows no line, and does not wait for rich to be imported


@contextmanager
def watching(options: Options, title: str) -> Iterator[Watch | None]:
    """A function that shows progress events while the block runs; None where nobody looks."""
    with _shown(options.quiet, options.verbose) as show:
        yield show and (lambda event: show(line(event, title, options.timeout), event.seconds))


@contextmanager
def counting(quiet: bool, verbose: bool) -> Iterator[Callable[[str], None] | None]:
    """A function that shows a line while the block runs; None where nobody looks."""
    started = time.monotonic()
    with _shown(quiet, verbose) as show:
        yield show and (lambda text: show(text, time.monotonic() - started))


@contextmanager
def _shown(quiet: bool, verbose: bool) -> Iterator[_Show | None]:
    if quiet or not (sys.stderr.isatty() or verbose):
        yield None
    elif sys.stderr.isatty():
        with ExitStack() as shown:
            yield _live(shown)
    else:
        yield _plain()


def line(event: Progress, title: str, timeout: float | None) -> str:
    """The worst open bound and the share proved come first: the number of domains has no end, and lines are cut."""
    limit = "" if timeout is None else f"/{_clock(timeout)}"
    return (
        f"worst bound {event.worst:+.4g}   proved {event.proved_share:.1%}   open {event.open:,}   "
        f"done {event.done:,}   {event.boxes_per_second:,.0f} boxes/s   {_clock(event.seconds)}{limit}   {title}"
    )


def closing(event: Lipschitz, title: str, timeout: float) -> str:
    """The two bounds of a Lipschitz constant, the upper one as soon as there is one."""
    upper = f"at most {event.upper:.5g}" if math.isfinite(event.upper) else "first pass"
    gap = f"   gap {event.gap:.1%}" if math.isfinite(event.gap) else ""
    clock = f"{_clock(event.seconds)}/{_clock(timeout)}"
    return f"at least {event.lower:.5g}   {upper}{gap}   {event.boxes:,} domains   {clock}   {title}"


def _live(shown: ExitStack) -> _Show:
    """A line that is on the terminal until `shown` is closed."""
    live: Live | None = None

    def show(text: str, seconds: float) -> None:
        nonlocal live
        if live is None and seconds < _AT_ONCE:
            return
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        if live is None:
            live = shown.enter_context(Live(console=Console(stderr=True), transient=True, refresh_per_second=8))
        live.update(Text(text, no_wrap=True, overflow="ellipsis"))

    return show


def _plain() -> _Show:
    shown = -_EVERY

    def show(text: str, seconds: float) -> None:
        nonlocal shown
        if seconds - shown >= _EVERY:
            shown = seconds
            print(text, file=sys.stderr, flush=True)

    return show


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 60:02d}:{whole % 60:02d}"
