"""Exported files against the Keras model: size, agreement, accuracy, latency; MediaPipe; streams.

    python -m benchmarks.edge SHARED_FOLDER [--output FOLDER]

SHARED_FOLDER holds data/esc10, hub/yamnet and reference/. A classifier is trained on ESC-10's folds 1 to 4
and exported in every scheme; all figures are of fold 5. Latencies are medians of runs in turns with the
float32 file, on one thread, so that whatever else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np

import tfaudiotl as tl
from benchmarks import memory
from tfaudiotl.audio.waveform import pieces_of
from tfaudiotl.backbones.frontend import LogMelSpec
from tfaudiotl.export.tflite import export_tflite
from tfaudiotl.markdown import markdown_table
from tfaudiotl.runtime.load import open_artifact
from tfaudiotl.runtime.predictor import Predictor
from tfaudiotl.runtime.stream import StreamingClassifier
from tfaudiotl.tflite.litert import measure_latency

WINDOW = 15_600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--output", type=Path, default=None)
    parser.add_argument("--only", default="esc10,yamnet,mini,mediapipe,stream", help="parts, with commas")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = args.output or Path(scratch)
        out.mkdir(parents=True, exist_ok=True)
        clips = tl.Clips.from_directory(args.shared / "data" / "esc10", fold_pattern=r"^(\d)-")
        train, test = clips[clips.fold != "5"], clips[clips.fold == "5"]
        weights = str(args.shared / "hub" / "yamnet")
        model = tl.train_classifier(train, weights=weights, test=0.15).model
        parts = {
            "esc10": lambda: esc10(model, train, test, out),
            "yamnet": lambda: yamnet(weights, args.shared, out),
            "mini": lambda: mini(weights, train, test, out),
            "mediapipe": lambda: mediapipe_scores(model, test, out),
            "stream": lambda: stream(model, test, out),
        }
        for name in args.only.split(","):
            print(f"\n## {name}\n", flush=True)
            parts[name]()


def windows_of(waveforms: Iterable[np.ndarray]) -> np.ndarray:
    """Windows of the clips, as a file of one patch takes them."""
    return np.array([window for wave in waveforms for window, _ in pieces_of(wave, LogMelSpec(), WINDOW)])


def show(rows: list[tuple[object, ...]]) -> None:
    header = ["File", "kB", "Size", "Windows agree", "Clips agree", "Accuracy", "Loss", "Latency 1 thread", "2 threads"]
    print(markdown_table(header, rows), flush=True)


def compare(
    path: Path, twin: Path, wanted: list[np.ndarray], cut: list[np.ndarray], targets: np.ndarray
) -> tuple[object, ...]:
    """One row of the table."""
    names = [str(i) for i in range(wanted[0].shape[-1])]
    run = open_artifact(path, class_names=names, num_threads=1).scores
    given = [run(windows) for windows in cut]
    same = np.concatenate([a.argmax(1) == b.argmax(1) for a, b in zip(given, wanted, strict=True)])
    ours, theirs = (np.stack([rows.mean(axis=0) for rows in scores]).argmax(1) for scores in (given, wanted))
    accuracy, keras_accuracy = ((best == targets.argmax(1)).mean() for best in (ours, theirs))
    ratios = [measure_latency(path, twin, threads=threads, runs=100).ratio for threads in (1, 2)]
    return (
        path.name,
        round(path.stat().st_size / 1e3),
        f"{path.stat().st_size / twin.stat().st_size:.3f}",
        f"{same.mean():.4f}",
        f"{(ours == theirs).mean():.4f}",
        f"{accuracy:.4f}",
        f"{keras_accuracy - accuracy:+.4f}",
        *(f"{ratio:.2f}" for ratio in ratios),
    )


def esc10(model: keras.Model, train: tl.Clips, test: tl.Clips, out: Path) -> None:
    waveforms = [test.load(row) for row in range(len(test))]
    cut = [windows_of([waveform]) for waveform in waveforms]
    reference = open_artifact(model)
    wanted = [reference.scores(rows) for rows in cut]
    options = {"overwrite": True}
    twin = export_tflite(model, out / "float32.tflite", **options)
    patch_twin = export_tflite(model, out / "float32_patches.tflite", input="patches", **options)
    rows = [compare(twin, twin, wanted, cut, test.targets)]
    for name, more in {
        "float16": {},
        "dynamic": {},
        "int8": {"calibrate": train},
        "int8_io": {"calibrate": train, "input": "patches"},
    }.items():
        start = time.perf_counter()
        path = export_tflite(model, out / f"{name}.tflite", quantize=name, **more, **options)
        print(f"{name}: exported in {time.perf_counter() - start:.0f} s", flush=True)
        rows.append(compare(path, patch_twin if name == "int8_io" else twin, wanted, cut, test.targets))
    path = export_tflite(model, out / "matmul.tflite", frontend="matmul", **options)
    rows.append(compare(path, twin, wanted, cut, test.targets))
    show(rows)


def yamnet(weights: str, shared: Path, out: Path) -> None:
    model = tl.YAMNet(weights=weights, patch_pooling="avg")
    calibrate, test = sounds(shared / "data", 600)
    cut = [windows_of([waveform])[:1] for waveform in test]
    reference = open_artifact(model)
    wanted = [reference.scores(rows) for rows in cut]
    targets = np.eye(wanted[0].shape[-1])[np.concatenate(wanted).argmax(1)]  # the Keras model's own answers
    twin = export_tflite(model, out / "yamnet.tflite", overwrite=True)
    rows = [compare(twin, twin, wanted, cut, targets)]
    official = shared / "reference" / "official_yamnet_classification.tflite"
    versus = []
    for name in ("dynamic", "int8"):
        more = {"calibrate": calibrate} if name == "int8" else {}
        path = export_tflite(model, out / f"yamnet_{name}.tflite", quantize=name, overwrite=True, **more)
        rows.append(compare(path, twin, wanted, cut, targets))
        found = measure_latency(path, official, threads=1, runs=100)
        versus.append((path.name, f"{found.ratio:.2f}", f"{found.median:.2f}", f"{found.float_median:.2f}"))
    show(rows)
    print("\n" + markdown_table(["File", "Latency against the official int8 file", "ms", "Official ms"], versus))


def sounds(folder: Path, count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Seeded windows from every data set: half to calibrate, half to test."""
    rng = np.random.default_rng(0)
    by_set = {
        path.name: sorted(p for p in path.rglob("*") if p.suffix in (".ogg", ".wav", ".flac", ".mp3"))
        for path in sorted(folder.iterdir())
    }
    share = count // len(by_set) + 20
    chosen = [files[i] for files in by_set.values() for i in rng.permutation(len(files))[:share]]
    found: list[np.ndarray] = []
    for path in (chosen[i] for i in rng.permutation(len(chosen))):
        try:
            windows = windows_of([tl.load_audio(path)])
        except tl.AudioError:
            continue
        found.append(windows[rng.integers(len(windows))])
        if len(found) == count:
            break
    return found[: count // 2], found[count // 2 :]


def mini(weights: str, train: tl.Clips, test: tl.Clips, out: Path) -> None:
    """Networks of a microcontroller's size with a linear head: six blocks of YAMNet, and the embedded yamnet_mini."""
    cut = [windows_of([test.load(row)]) for row in range(len(test))]
    rows = []
    for name, options in (
        ("six_blocks", {"weights": weights, "embedding": "layer6"}),
        ("yamnet_mini", {"backbone": "yamnet_mini"}),
    ):
        model = tl.train_classifier(train, test=0.15, hidden=(), **options).model
        wanted = [open_artifact(model).scores(windows) for windows in cut]
        small = {"input": "patches", "overwrite": True}
        twin = export_tflite(model, out / f"{name}.tflite", **small)
        path = export_tflite(model, out / f"{name}_int8_io.tflite", quantize="int8_io", calibrate=train, **small)
        rows += [compare(file, twin, wanted, cut, test.targets) for file in (twin, path)]
    show(rows)


def mediapipe_scores(model: keras.Model, test: tl.Clips, out: Path) -> None:
    from mediapipe.tasks.python import BaseOptions, audio
    from mediapipe.tasks.python.components.containers import AudioData

    path = export_tflite(model, out / "mediapipe.tflite", quantize="dynamic", overwrite=True)
    ours = Predictor(path, num_threads=1)
    options = audio.AudioClassifierOptions(base_options=BaseOptions(model_asset_path=str(path)))
    worst, labels = 0.0, set()
    with audio.AudioClassifier.create_from_options(options) as theirs:
        for row in range(0, len(test), 4):
            window = test.load(row)[:WINDOW]
            (found, *_) = theirs.classify(AudioData.create_from_array(window, 16_000))
            scores = ours.artifact.scores(window[None])[0]
            by_name = dict(zip(ours.class_names, scores, strict=True))
            for category in found.classifications[0].categories:
                labels.add(category.category_name)
                worst = max(worst, abs(category.score - by_name[category.category_name]))
    print(f"Largest difference of a score: {worst:.5f}; labels are ours: {labels == set(ours.class_names)}")


def stream(model: keras.Model, test: tl.Clips, out: Path) -> None:
    path = out / "stream.tflite"
    export_tflite(model, path, quantize="dynamic", overwrite=True)
    predictor = Predictor(path, hop_seconds=0.48, num_threads=1, min_gap=0.3, smoothing=3)
    wave = np.concatenate([test.load(row) for row in range(0, len(test), 4)])
    wanted = {str(event) for event in predictor.predict(wave, sample_rate=16_000)}
    for chunk in (1, 160, 1_000, 16_000):
        part = wave if chunk > 1 else wave[: 16_000 * 20]
        whole = wanted if chunk > 1 else {str(event) for event in predictor.predict(part, sample_rate=16_000)}
        live, start = StreamingClassifier(predictor), time.process_time()
        events = [e for i in range(0, len(part), chunk) for e in live.push(part[i : i + chunk])] + live.finish()
        used = (time.process_time() - start) / (len(part) / 16_000)
        same = {str(event) for event in events} == whole
        print(f"chunks of {chunk}: same {len(whole)} events: {same}; {used:.2%} of one core", flush=True)
    live = StreamingClassifier(Predictor(path, hop_seconds=9.6, num_threads=1))
    minute, held = np.tile(wave, 2)[: 16_000 * 60], []
    for number in range(24 * 60):
        live.push(minute)
        if number in (60, 24 * 60 - 1):
            held.append(memory.resident())
    print(f"24 h of stream: {held[0]:.1f} MiB held after 1 h, {held[1]:.1f} MiB after 24 h")


if __name__ == "__main__":
    main()
