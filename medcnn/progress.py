"""Progress of long work: a bar with time left on a terminal, plain lines elsewhere, nothing in the core.

Core functions take `progress` as a parameter and never print.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 15.0


class Progress(Protocol):
    """Wraps an iterable; shows how much of `total` is done under `title`."""

    def __call__(self, items: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
        """Yield the items unchanged, in order."""


def silent(items: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:  # noqa: ARG001 - the protocol's signature
    """Show nothing."""
    yield from items


def shown(items: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
    """Show a bar on a terminal, else a plain line now and then, on standard error."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    if sys.stderr.isatty():
        yield from _bar(items, title, total)
    else:
        yield from _lines(items, title, total)


def _bar(items: Iterable[T], title: str, total: int | None) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        for item in items:
            yield item
            bar.advance(task)


def _lines(items: Iterable[T], title: str, total: int | None) -> Iterator[T]:
    start = last = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            left = f", about {(now - start) / number * (total - number):.0f} s left" if total else ""
            print(f"{title}: {number}{f' of {total}' if total else ''}{left}", file=sys.stderr, flush=True)
