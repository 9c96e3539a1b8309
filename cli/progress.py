"""Progress on stderr: a live line on a terminal, plain lines with --verbose, else nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from cli.options import Options

if TYPE_CHECKING:
    from rich.live import Live

    from verif.bab import Progress

Watch = Callable[["Progress"], None]
_EVERY = 10.0  # seconds between plain lines
_AT_ONCE = 0.3  # what is decided within these seconds shows no line, and does not wait for rich to be imported


@contextmanager
def watching(options: Options, title: str) -> Iterator[Watch | None]:
    """A function that shows progress events while the block runs; None where nobody looks."""
    if options.quiet or not (sys.stderr.isatty() or options.verbose):
        yield None
    elif sys.stderr.isatty():
        with ExitStack() as shown:
            yield _live(options, title, shown)
    else:
        yield _plain(options, title)


def line(event: Progress, title: str, timeout: float | None) -> str:
    """The worst open bound and the share proved come first: the number of domains has no end, and lines are cut."""
    limit = "" if timeout is None else f"/{_clock(timeout)}"
    return (
        f"worst bound {event.worst:+.4g}   proved {event.proved_share:.1%}   open {event.open:,}   "
        f"done {event.done:,}   {event.boxes_per_second:,.0f} boxes/s   {_clock(event.seconds)}{limit}   {title}"
    )


def _live(options: Options, title: str, shown: ExitStack) -> Watch:
    """A line that is on the terminal until `shown` is closed."""
    live: Live | None = None

    def show(event: Progress) -> None:
        nonlocal live
        if live is None and event.seconds < _AT_ONCE:
            return
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        if live is None:
            live = shown.enter_context(Live(console=Console(stderr=True), transient=True, refresh_per_second=8))
        live.update(Text(line(event, title, options.timeout), no_wrap=True, overflow="ellipsis"))

    return show


def _plain(options: Options, title: str) -> Watch:
    shown = -_EVERY

    def show(event: Progress) -> None:
        nonlocal shown
        if event.seconds - shown >= _EVERY:
            shown = event.seconds
            print(line(event, title, options.timeout), file=sys.stderr, flush=True)

    return show


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 60:02d}:{whole % 60:02d}"
