"""The engine against what people do today: the TF Hub graph, clip by clip. Ratios measured in one run.

    python -m benchmarks.extraction --shared ../shared [--only a b c d e f]

(a) patches per second, waveforms in memory, front-end included; float32 and int8 pointwise convolutions.
(b) the ESC-10 folder end to end, OGG 44.1 kHz to stored embeddings, over soundfile + soxr + hub graph.
(c) time and peak memory against the number of files. (d) one 6-hour file. (e) VGGish, as (a).
(f) all layers in one pass over the last one alone.
The two sides take turns, and the ratio is that of the best times: other programs only ever slow things down.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import soundfile
import soxr

from benchmarks import memory

ROUNDS = 3


def cosine(found: np.ndarray, expected: np.ndarray) -> float:
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return float(((found * expected).sum(axis=1) / np.maximum(norms, 1e-30)).min())


def in_turns(*ways: Callable[[], object]) -> list[float]:
    """Best seconds of each way over ROUNDS turns."""
    best = [np.inf] * len(ways)
    for _ in range(ROUNDS):
        for number, way in enumerate(ways):
            start = perf_counter()
            way()
            best[number] = min(best[number], perf_counter() - start)
    return best


def recordings(shared: Path, count: int, seconds: float = 5.0) -> list[np.ndarray]:
    from tfaudiotl import load_audio

    files = sorted((shared / "data" / "esc10").rglob("*.ogg"))
    step = max(1, len(files) // count)
    return [load_audio(path)[: int(seconds * 16_000)] for path in files[::step][:count]]


def networks(backbone: str, weights: str, kinds: tuple[str | None, ...]) -> dict[str, object]:
    from tfaudiotl import EngineOptions, Extractor

    found = {}
    for kind in kinds:
        extractor = Extractor(backbone, weights=weights, engine=EngineOptions(runtime="litert", quantize=kind))
        extractor.network.prepare()
        found[kind or "float32"] = extractor.network
    return found


def graph_against_engine(name: str, weights: str, clips: list[np.ndarray], backbone: str, targets: str) -> None:
    import tensorflow_hub

    hub = tensorflow_hub.load(weights)

    def clip_by_clip() -> list[np.ndarray]:
        outputs = [hub(clip) for clip in clips]
        return [(o[1] if isinstance(o, (tuple, list)) else o).numpy() for o in outputs]

    expected = np.concatenate(clip_by_clip())
    engines = networks(backbone, weights, (None, "int8"))
    for engine in engines.values():
        list(engine.run(clips[:4], trim=False))
    ways = [clip_by_clip, *(lambda e=e: list(e.run(clips, trim=False)) for e in engines.values())]
    seconds = in_turns(*ways)
    print(f"\n({name}) {backbone}, {len(clips)} clips of 5 s, {len(expected)} patches; asked: {targets}")
    print(f"  TF Hub graph, clip by clip: {len(expected) / seconds[0]:.0f} patches/s")
    for (kind, engine), taken in zip(engines.items(), seconds[1:], strict=True):
        found = np.concatenate([rows[0] for rows in engine.run(clips, trim=False)])
        print(
            f"  engine {kind}: {len(expected) / taken:.0f} patches/s, ratio {seconds[0] / taken:.2f}, "
            f"cosine to the hub embedding at least {cosine(found, expected):.6f}"
        )
    profile(engines, clips)


def profile(engines: dict[str, object], clips: list[np.ndarray]) -> None:
    """Where the time goes: front-end alone and network alone, on one thread each."""
    for kind, engine in engines.items():
        start = perf_counter()
        pictures = np.concatenate([engine.frontend.patches(clip) for clip in clips])
        front = (perf_counter() - start) / len(pictures)
        batch = np.ascontiguousarray(pictures[: engine.batch_size, ..., None])
        runner = engine.prepare()
        start = perf_counter()
        for _ in range(20):
            runner(batch)
        network = (perf_counter() - start) / 20 / len(batch)
        print(f"  profile {kind}: front-end {front * 1e6:.0f} us, network {network * 1e6:.0f} us a patch on one thread")


def matrix_product() -> None:
    """What one core gives at most in float32: the bound for any network that is mostly matrix products."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        a = np.ones((1024, 1024), np.float32)
        taken = in_turns(lambda: [a @ a for _ in range(10)])[0]
    print(f"float32 matrix product, one thread: {10 * 2 * 1024**3 / taken / 1e9:.0f} GFLOP/s")


def folder_end_to_end(shared: Path, weights: str) -> None:
    import tensorflow_hub

    from tfaudiotl import EngineOptions, Extractor, embed_to_store

    hub = tensorflow_hub.load(weights)
    files = sorted((shared / "data" / "esc10").rglob("*.ogg"))

    def plain_loop() -> list[np.ndarray]:
        rows = []
        for path in files:
            sound, rate = soundfile.read(path, dtype="float32")
            sound = sound.mean(axis=1) if sound.ndim == 2 else sound
            rows.append(hub(soxr.resample(sound, rate, 16_000))[1].numpy())
        return rows

    def engine(quantize: str | None) -> Callable[[], object]:
        extractor = Extractor("yamnet", weights=weights, engine=EngineOptions(runtime="litert", quantize=quantize))
        extractor.network.prepare()

        def run() -> None:
            with tempfile.TemporaryDirectory() as folder:
                embed_to_store(extractor, files, Path(folder) / "store")

        return run

    seconds = in_turns(plain_loop, engine(None), engine("int8"))
    print(f"\n(b) {len(files)} files of ESC-10, OGG to stored embeddings; asked: 2.8")
    print(f"  plain loop {seconds[0]:.2f} s; engine float32 {seconds[1]:.2f} s, ratio {seconds[0] / seconds[1]:.2f}; "
          f"int8 {seconds[2]:.2f} s, ratio {seconds[0] / seconds[2]:.2f}")  # fmt: skip


def child(folder: str, store: str, weights: str) -> None:
    """One run in a process of its own: prints its seconds and its peak memory in MB."""
    from tfaudiotl import EngineOptions, Extractor, embed_to_store
    from tfaudiotl.data.folders import sound_files

    extractor = Extractor("yamnet", weights=weights, engine=EngineOptions(runtime="litert"))
    extractor.network.prepare()
    before = memory.peak()
    report = embed_to_store(extractor, sound_files(folder), store)
    print("CHILD", report.seconds, before, memory.peak(), report.patches)


def run_child(folder: Path, weights: str) -> tuple[float, float, float, int]:
    with tempfile.TemporaryDirectory() as store:
        command = [
            sys.executable,
            "-m",
            "benchmarks.extraction",
            "--child",
            str(folder),
            str(Path(store) / "store"),
            "--weights",
            weights,
        ]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    numbers = next(line for line in out.splitlines() if line.startswith("CHILD")).split()[1:]
    return float(numbers[0]), float(numbers[1]), float(numbers[2]), int(numbers[3])


def scaling(weights: str) -> None:
    print("\n(c) time and peak memory against the number of files (5 s, 16 kHz); asked: linear within 10 %, flat")
    rng = np.random.default_rng(0)
    for count in (100, 400, 1600):
        with tempfile.TemporaryDirectory() as folder:
            for number in range(count):
                noise = rng.normal(0, 0.1, 80_000).astype(np.float32)
                soundfile.write(f"{folder}/{number:05d}.wav", noise, 16_000)
            taken, before, peak, patches = min(run_child(Path(folder), weights) for _ in range(2))
        print(f"  {count} files: {taken:.2f} s, {taken / count * 1e3:.2f} ms a file, peak {peak:.0f} MB "
              f"({before:.0f} MB before the first file), {patches} patches")  # fmt: skip


def six_hours(weights: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        with soundfile.SoundFile(f"{folder}/long.wav", "w", 16_000, 1) as file:
            for _ in range(6 * 60):
                file.write(rng.normal(0, 0.1, 60 * 16_000).astype(np.float32))
        taken, _, peak, patches = run_child(Path(folder), weights)
    print(f"\n(d) one 6-hour file: {taken:.1f} s, {patches} patches, peak {peak:.0f} MB; asked: under 1500 MB")


def all_layers(shared: Path, weights: str) -> None:
    from tfaudiotl import EngineOptions, Extractor, embedding_layers, load_audio

    clips = [load_audio(path) for path in sorted((shared / "data" / "fsdd").rglob("*.wav"))]
    engine = EngineOptions(runtime="litert")
    every = [layer.name for layer in embedding_layers("yamnet") if layer.name != "scores"]
    last, all_of_them = (Extractor("yamnet", layers, weights=weights, engine=engine) for layers in (None, every))
    for extractor in (last, all_of_them):
        extractor.network.prepare()
    seconds = in_turns(*(lambda e=e: [None for _ in e.network.run(clips)] for e in (last, all_of_them)))
    print(f"\n(f) {len(clips)} clips of FSDD: last layer {seconds[0]:.2f} s, {len(every)} layers {seconds[1]:.2f} s, "
          f"ratio {seconds[1] / seconds[0]:.2f}; asked: at most 1.5")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--only", nargs="*", default=list("abcdef"))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--weights", help="YAMNet's SavedModel; default: hub/yamnet in --shared")
    options = parser.parse_args()
    weights = options.weights or str(options.shared / "hub" / "yamnet")
    if options.child:
        child(*options.child, weights)
        return
    matrix_product()
    if "a" in options.only:
        clips = recordings(options.shared, 100)
        graph_against_engine("a", weights, clips, "yamnet", "3.0 in float32, 6 in int8")
    if "b" in options.only:
        folder_end_to_end(options.shared, weights)
    if "c" in options.only:
        scaling(weights)
    if "d" in options.only:
        six_hours(weights)
    if "f" in options.only:
        all_layers(options.shared, weights)
    if "e" in options.only:
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from tests.helpers.vggish import write_stand_in

        with tempfile.TemporaryDirectory() as folder:
            stand_in = str(write_stand_in(Path(folder) / "vggish"))
            clips = recordings(options.shared, 20)
            graph_against_engine("e", stand_in, clips, "vggish", "likewise (random weights)")


if __name__ == "__main__":
    main()
