"""Which operator is quantised how: measured on the model at hand, not taken from a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tfaudiotl.export.audit import LAYERS, part_of
from tfaudiotl.export.calibrate import measure_ranges
from tfaudiotl.export.equalize import equalize
from tfaudiotl.export.finetune import FineTuning, fine_tune
from tfaudiotl.export.flatbuffer import Graph, Operator
from tfaudiotl.export.quantize import apply_schemes, run_content

GOAL = 0.99  # agreement on the calibration windows that the choice of schemes aims at
JUDGED = 120  # calibration windows that each choice is tried on


@dataclass(frozen=True)
class Quantized:
    """A quantised file and how it came about.

    Attributes:
        content: the file.
        schemes: operator's name -> scheme; operators not named are in float.
        sensitivity: block -> agreement with the float file when that block alone is static int8; empty
            where nothing had to be chosen.
    """

    content: bytes
    schemes: dict[str, str]
    sensitivity: dict[str, float] = field(default_factory=dict)


def quantize_dynamic(content: bytes) -> Quantized:
    """Int8 weights in the pointwise convolutions and dense layers; everything else in float.

    These hold 98 % of the weights. Depthwise layers and the front-end, where dynamic quantisation does the
    damage, hold little; so does the first convolution.
    """
    schemes = {op.name: "dynamic" for op, _ in _network(content) if _is_heavy(Graph(content), op)}
    return Quantized(apply_schemes(content, schemes), schemes)


def quantize_static(content: bytes, windows: np.ndarray, *, goal: float = GOAL) -> Quantized:
    """Static int8 wherever the network bears it, dynamic where it does not; the front-end in float.

    Channels are equalised. Each block is then tried alone in static int8, and the worst ones are taken out of
    it, as few as reach ``goal``.

    Args:
        content: the float file.
        windows: ``(windows, ...)``: its inputs on real sound.
        goal: agreement with the float file on these windows to aim at.
    """
    even = equalize(content, measure_ranges(content, windows))
    limits = {name: found.limits() for name, found in even.ranges.items()}
    judged = windows[np.linspace(0, len(windows) - 1, min(JUDGED, len(windows))).astype(int)]
    wanted = run_content(content, judged)
    graph = Graph(even.content)
    blocks: dict[str, list[Operator]] = {}
    for op, block in _network(even.content):
        blocks.setdefault(block, []).append(op)

    def schemes(static: set[str], *, others: bool) -> dict[str, str]:
        chosen = {}
        for block, operators in blocks.items():
            for op in operators:
                if block in static:
                    chosen[op.name] = "static"
                elif others and _is_heavy(graph, op):
                    chosen[op.name] = "dynamic"
        return chosen

    def judge(chosen: dict[str, str]) -> tuple[float, float]:
        found = run_content(apply_schemes(even.content, chosen, limits), judged)
        return _agreement(found, wanted), float(np.abs(found - wanted).mean())

    alone = {block: judge(schemes({block}, others=False)) for block in blocks}
    worst_first = sorted(blocks, key=lambda block: (-alone[block][1], block))

    def out(count: int) -> dict[str, str]:
        return schemes(set(worst_first[count:]), others=True)

    count = _least(len(blocks) - 1, lambda taken: judge(out(taken))[0] >= goal)
    chosen = out(count)
    content = apply_schemes(even.content, chosen, limits)
    return Quantized(content, chosen, {block: agreement for block, (agreement, _) in alone.items()})


def quantize_throughout(
    content: bytes, inputs: np.ndarray, calibration: np.ndarray, *, int8_io: bool, options: FineTuning | None = None
) -> Quantized:
    """Every operator in static int8, after channels are equalised and a short fine-tuning.

    Args:
        content: a float file of patches.
        inputs: ``(patches, ...)``: what to fine-tune on.
        calibration: ``(patches, ...)``: what to take ranges from.
        int8_io: also input and output.
        options: of the fine-tuning.
    """
    even = equalize(content, measure_ranges(content, calibration))
    tuned, limits = fine_tune(even.content, even.ranges, inputs, options)
    schemes = {op.name: "static" for op in Graph(tuned).operators()}
    return Quantized(apply_schemes(tuned, schemes, limits, int8_io=int8_io), schemes)


def _network(content: bytes) -> list[tuple[Operator, str]]:
    """Layers and means behind the front-end, with their blocks."""
    found, part = [], "front-end"
    for op in Graph(content).operators():
        part = part_of(op, part)
        if part != "front-end" and op.kind in (*LAYERS, "MEAN"):
            found.append((op, part))
    return found


def _is_heavy(graph: Graph, op: Operator) -> bool:
    """Whether dynamic quantisation pays: dense layers, and convolutions that mix more than one channel."""
    if op.kind == "CONV_2D":
        return graph.shape(op.inputs[1])[-1] > 1
    return op.kind == "FULLY_CONNECTED"


def _agreement(a: np.ndarray, b: np.ndarray) -> float:
    return float((a.argmax(axis=-1) == b.argmax(axis=-1)).mean())


def _least(most: int, enough: Callable[[int], bool]) -> int:
    """The least number in 0 to ``most`` that is enough, if more is never worse; ``most`` if none is."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle + 1
    return low
