"""Progress on stderr: a live line on a terminal, plain lines with --verbose, else nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cli.options import Options

if TYPE_CHECKING:
    from verif.bab import Progress

Watch = Callable[["Progress"], None]
_EVERY = 10.0  # seconds between plain lines


@contextmanager
def watching(options: Options, title: str) -> Iterator[Watch | None]:
    """A function that shows progress events while the block runs; None where nobody looks."""
    if options.quiet or not (sys.stderr.isatty() or options.verbose):
        yield None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        with Live(console=Console(stderr=True), transient=True, refresh_per_second=8) as live:
            yield lambda event: live.update(
                Text(line(event, title, options.timeout), no_wrap=True, overflow="ellipsis")
            )
    else:
        yield _plain(options, title)


def line(event: Progress, title: str, timeout: float | None) -> str:
    """The worst open bound and the share proved come first: the number of domains has no end, and lines are cut."""
    limit = "" if timeout is None else f"/{_clock(timeout)}"
    return (
        f"worst bound {event.worst:+.4g}   proved {event.proved_share:.1%}   open {event.open:,}   "
        f"done {event.done:,}   {event.boxes_per_second:,.0f} boxes/s   {_clock(event.seconds)}{limit}   {title}"
    )


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
