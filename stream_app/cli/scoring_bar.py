"""The progress bar of commands that put many texts to the models, or read much of a topic."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress


@contextmanager
def scoring_bar(title: str, texts: int | None) -> Generator[Callable[[int], object]]:
    """A bar on standard error while the block runs, if that is a terminal; call the value with each advance.

    `texts` is how many there are, None where nobody knows. Standard output is left alone.
    """
    console = Console(stderr=True)
    with Progress(console=console, transient=True, redirect_stdout=False, disable=not console.is_terminal) as bar:
        bar_id = bar.add_task(title, total=texts)
        yield lambda count: bar.advance(bar_id, count)
