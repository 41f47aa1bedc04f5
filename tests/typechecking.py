"""What checks annotations at run time, for jaxtyping's `--jaxtyping-packages`.

Inside of `with_statistics` a loss returns a pair in place of the array that it is
annotated with; no caller sees it.
"""

import functools
from collections.abc import Callable
from typing import Any

from beartype import beartype


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    strict = beartype(function)

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        pair = any(type(x).__name__ == "LossWithStatistics" for x in kwargs.values())
        return function(*args, **kwargs) if pair else strict(*args, **kwargs)

    return called
