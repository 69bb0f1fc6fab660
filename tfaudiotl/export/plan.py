"""Which operator is quantised how: measured on the model at hand, not taken from a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tfaudiotl.export.audit import LAYERS, is_heavy, part_of, short_name
from tfaudiotl.export.calibrate import measure_ranges
from tfaudiotl.export.equalize import Equalized, equalize
from tfaudiotl.export.graph import Graph, Operator
from tfaudiotl.export.quantize import apply_schemes, run_content

GOAL = 0.995  # agreement on the calibration windows that int8 throughout aims at
NEAR = 1.5  # how far static int8 may be from the float file, over what dynamic quantisation is
MOST_WIDE = 8  # operators with 16-bit activations: they are slow where there is no kernel of their own
JUDGED = 240  # calibration windows that each choice is tried on


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
    graph = Graph(content)
    schemes = {op.name: "dynamic" for op, _ in _network(graph) if is_heavy(graph, op)}
    return Quantized(apply_schemes(content, schemes, graph=graph), schemes)


def quantize_static(content: bytes, windows: np.ndarray, *, near: float = NEAR) -> Quantized:
    """Static int8 wherever the network bears it, dynamic where it does not; the front-end in float.

    Each block is tried alone in static int8, and the worst ones are taken out of it: as few as bring the mean
    difference of the scores within ``near`` times that of dynamic quantisation throughout. The mean difference tells
    more than the agreement, which moves by single windows. Channels are not equalised: that helps static layers, but
    harms dynamic ones more.

    Args:
        content: the float file.
        windows: ``(windows, ...)``: its inputs on real sound.
        near: at least 1.
    """
    trial = _Trial(Equalized(content, measure_ranges(content, windows)), windows)
    graph = trial.graph
    blocks: dict[str, list[Operator]] = {}
    for op, block in _network(graph):
        blocks.setdefault(block, []).append(op)
    # A block of means alone has no weights: that one in int8 would make no int8 file.
    blocks = {block: found for block, found in blocks.items() if any(op.kind in LAYERS for op in found)}

    def schemes(static: set[str], *, others: bool) -> dict[str, str]:
        chosen = {}
        for block, operators in blocks.items():
            for op in operators:
                if block in static:
                    chosen[op.name] = "static"
                elif others and is_heavy(graph, op):
                    chosen[op.name] = "dynamic"
        return chosen

    alone = {block: trial.judge_schemes(schemes({block}, others=False)) for block in blocks}
    worst_first = sorted(alone, key=lambda name: (-alone[name][1], name))

    def out(count: int) -> dict[str, str]:
        return schemes(set(worst_first[count:]), others=True)

    most = near * trial.judge_schemes(schemes(set(), others=True))[1]
    chosen = out(_least(len(blocks) - 1, lambda taken: trial.judge_schemes(out(taken))[1] <= most))
    sensitivity = {block: agreement for block, (agreement, _) in alone.items()}
    return Quantized(trial.apply(chosen), chosen, sensitivity)


def quantize_throughout(content: bytes, patches: np.ndarray, *, goal: float = GOAL) -> Quantized:
    """Integers throughout, input and output too: int8, and 16-bit activations in the few worst operators.

    Channels are equalised. Each operator is then tried alone in int8, and the worst ones keep 16 bits for what
    runs through them (their weights stay int8), as few as reach ``goal`` and at most ``MOST_WIDE``.

    Args:
        content: a float file of patches.
        patches: ``(patches, ...)``: its inputs on real sound.
        goal: agreement with the float file on these patches to aim at.
    """
    trial = _Trial(equalize(content, measure_ranges(content, patches)), patches)
    operators = list(trial.graph.operators())
    layers = [op.name for op in operators if op.kind in LAYERS]
    alone = {name: trial.judge_schemes({name: "static"}) for name in layers}
    worst_first = sorted(alone, key=lambda name: (-alone[name][1], name))

    def with_wide(count: int) -> tuple[bytes, dict[str, str]]:
        wide = worst_first[:count]
        schemes = {op.name: "static16" if op.name in wide else "static" for op in operators}
        limits = trial.limits | {name: trial.ranges[name].extremes() for name in wide}
        return trial.apply(schemes, limits, int8_io=True), schemes

    def enough(count: int) -> bool:
        return trial.judge(with_wide(count)[0])[0] >= goal

    content, schemes = with_wide(_least(min(MOST_WIDE, len(layers) - 1), enough))
    return Quantized(content, schemes, {short_name(name): agreement for name, (agreement, _) in alone.items()})


def _network(graph: Graph) -> list[tuple[Operator, str]]:
    """Layers and means behind the front-end, with their blocks.

    A layer whose filters are computed in the file, as RawNet2's sinc filters are, stays in float: its filters would be
    coded like sound, with a zero point, which the kernels refuse.
    """
    found, part = [], "front-end"
    for op in graph.operators():
        part = part_of(op, part)
        coded = op.kind == "MEAN" or (op.kind in LAYERS and graph.is_constant(op.inputs[1]))
        if part != "front-end" and coded:
            found.append((op, part))
    return found


class _Trial:
    """A file prepared for quantisation, and how far quantised versions of it are from it on real sound."""

    def __init__(self, prepared: Equalized, windows: np.ndarray):
        self.content, self.ranges = prepared.content, prepared.ranges
        self.graph = Graph(prepared.content)
        self.limits = {name: found.limits() for name, found in self.ranges.items()}
        self._judged = windows[np.linspace(0, len(windows) - 1, min(JUDGED, len(windows))).astype(int)]
        self._wanted = run_content(self.content, self._judged)

    def judge(self, content: bytes) -> tuple[float, float]:
        """Agreement with the file, and the mean absolute difference."""
        found = run_content(content, self._judged)
        agreement = (found.argmax(axis=-1) == self._wanted.argmax(axis=-1)).mean()
        return float(agreement), float(np.abs(found - self._wanted).mean())

    def judge_schemes(self, schemes: dict[str, str]) -> tuple[float, float]:
        """Likewise, of the file quantised so."""
        return self.judge(self.apply(schemes))

    def apply(
        self, schemes: dict[str, str], limits: dict[str, tuple[float, float]] | None = None, *, int8_io: bool = False
    ) -> bytes:
        """The file quantised so, with its own ranges or others."""
        return apply_schemes(self.content, schemes, limits or self.limits, graph=self.graph, int8_io=int8_io)


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
