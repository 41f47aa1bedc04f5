"""The options and the progress bar that the examples share."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm


def positive(text: str) -> int:
    """A whole number from 1 up."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {number}")
    return number


def new_parser(description: str) -> argparse.ArgumentParser:
    """One whose help tells the defaults."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )


def add_shared(
    parser: argparse.ArgumentParser, *, output: str, seed: str, smoke: str
) -> None:
    """What every example takes beside its own options."""
    add = parser.add_argument
    add("--seed", type=int, default=0, help=seed)
    add("--output", type=Path, default=Path(output), help="the picture, a PNG")
    add("--smoke", action="store_true", help=f"{smoke}, to see that it runs")
    add("--no-progress", action="store_true", help="without the progress bar")


@contextmanager
def progress(steps: int, args: argparse.Namespace) -> Iterator[Callable[[float], None]]:
    """A bar, as the function that takes each step's loss and shows the running mean."""
    running = None
    with tqdm(total=steps, unit="step", disable=args.no_progress) as bar:

        def step(loss: float) -> None:
            nonlocal running
            running = loss if running is None else 0.9 * running + 0.1 * loss
            bar.set_postfix_str(f"loss {running:.3f} nats", refresh=False)
            bar.update()

        yield step
