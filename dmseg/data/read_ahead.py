"""Reads the batches of an epoch in a thread, ahead of the training."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, TypeVar

from torch import Tensor

Item = TypeVar("Item")

READ_AHEAD = 3
"""Number of batches that are read ahead."""


class ReadAhead(Generic[Item]):
    """Reads the batches of an epoch in a thread, `READ_AHEAD` of them ahead.

    Args:
        read: reads the slices of one batch.
    """

    def __init__(self, read: Callable[[Tensor], Item]) -> None:
        self._read = read
        self._pool = ThreadPoolExecutor(1, "read-ahead")
        self._coming: deque[Future[Item]] = deque()
        self._rest: Iterator[Tensor] = iter(())

    def begin(self, rows: Tensor) -> None:
        """Starts with other batches; those that were read ahead are discarded."""
        for item in self._coming:
            item.cancel()
        self._coming.clear()
        self._rest = iter(rows)
        for row in islice(self._rest, READ_AHEAD):
            self._coming.append(self._pool.submit(self._read, row))

    def next(self) -> Item:
        """Returns the next batch, or raises the error that reading it raised."""
        for row in islice(self._rest, 1):
            self._coming.append(self._pool.submit(self._read, row))
        return self._coming.popleft().result()
