"""The batches of every epoch: their order depends on the seed and the epoch's number alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from tfaudiotl._seeds import stream
from tfaudiotl.training.head import balanced_weights


class Inputs(Protocol):
    """Gives a model's inputs for rows of a table."""

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of one row, by input."""

    def batch(self, rows: np.ndarray, draw: Sequence[int] | None = None) -> tuple[np.ndarray, ...]:
        """The inputs of ``rows``, each ``(rows, ...)``; ``draw`` seeds what is random in training."""


@dataclass(frozen=True)
class BatchPlan:
    """Which rows make up which batch.

    Attributes:
        inputs: where a batch's inputs come from.
        targets: float32 ``(rows, classes)`` of the whole table.
        weights: float32 ``(rows,)`` of the whole table.
        batch_size: rows per step.
        seed: of the order, and of the variants drawn.
        variants: ``(variants, rows)``: the input rows that may stand for a row, one drawn per epoch; None: itself.
        full_batches: leave out an epoch's last rows when they do not fill a batch: static shapes, for TPU.
    """

    inputs: Inputs
    targets: np.ndarray
    weights: np.ndarray
    batch_size: int
    seed: int = 0
    variants: np.ndarray | None = None
    full_batches: bool = False

    def steps(self, rows: np.ndarray) -> int:
        """Batches of an epoch over ``rows``."""
        if self.full_batches:
            if len(rows) < self.batch_size:
                raise ValueError(
                    f"batch_size={self.batch_size}: there are {len(rows)} rows to train on, none would be used"
                )
            return len(rows) // self.batch_size
        return math.ceil(len(rows) / self.batch_size)

    def training(self, rows: np.ndarray, *, balanced: bool, first: int, last: int) -> tf.data.Dataset:
        """Shuffled batches of ``rows`` for the epochs ``first`` to ``last - 1``, with sample weights of mean 1."""
        weights, steps = self._weights(rows, balanced), self.steps(rows)

        def draw() -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
            for epoch in range(first, last):
                rng = stream("batches", self.seed, epoch)
                order = rng.permutation(len(rows))
                stands_in = rows
                if self.variants is not None:
                    stands_in = self.variants[rng.integers(len(self.variants), size=len(rows)), rows]
                for step in range(steps):
                    some = order[step * self.batch_size : (step + 1) * self.batch_size]
                    yield (
                        self._inputs(stands_in[some], (self.seed, epoch, step)),
                        self.targets[rows[some]],
                        weights[some],
                    )

        return self._dataset(draw, steps * (last - first), full=self.full_batches)

    def in_order(self, rows: np.ndarray, *, balanced: bool = False) -> tf.data.Dataset:
        """The batches of ``rows`` as they come, once, for validation, with weights as in training."""
        weights = self._weights(rows, balanced)

        def draw() -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
            for start in range(0, len(rows), self.batch_size):
                part = slice(start, start + self.batch_size)
                yield self._inputs(rows[part]), self.targets[rows[part]], weights[part]

        return self._dataset(draw, math.ceil(len(rows) / self.batch_size), full=False)

    def _weights(self, rows: np.ndarray, balanced: bool) -> np.ndarray:
        weights = self.weights[rows] * (balanced_weights(self.targets[rows]) if balanced else 1.0)
        return (weights / weights.mean()).astype(np.float32)

    def _inputs(self, rows: np.ndarray, draw: Sequence[int] | None = None) -> Any:
        inputs = self.inputs.batch(rows, draw)
        return inputs if len(inputs) > 1 else inputs[0]

    def _dataset(self, draw: object, batches: int, *, full: bool) -> tf.data.Dataset:
        size = self.batch_size if full else None
        inputs = tuple(tf.TensorSpec((size, *shape), tf.float32) for shape in self.inputs.shapes)
        spec: tuple[object, ...] = (
            inputs if len(inputs) > 1 else inputs[0],
            tf.TensorSpec((size, self.targets.shape[1]), tf.float32),
            tf.TensorSpec((size,), tf.float32),
        )
        dataset = tf.data.Dataset.from_generator(draw, output_signature=spec)
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(batches))
        options = tf.data.Options()
        # Several devices share each batch; a generator has no files to share out.
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        return dataset.with_options(options).prefetch(4)
