"""The progress bar of commands that put many texts to the models."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress


@contextmanager
def scoring_bar(title: str, texts: int) -> Generator[Callable[[int], object]]:
    """A bar on standard error while the block runs, if that is a terminal; call the value with each advance."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        bar_id = bar.add_task(title, total=texts)
        yield lambda count: bar.advance(bar_id, count)
