"""The classic first experiment, all offline: tell white, brown and pink noise apart from five clips of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfaudiotl._seeds import stream
from tfaudiotl._threads import Progress
from tfaudiotl.audio.files import write_audio
from tfaudiotl.audio.waveform import SAMPLE_RATE, Colour, coloured_noise
from tfaudiotl.data.clips import Clips
from tfaudiotl.evaluation.plots import save_figure, spectrograms_figure
from tfaudiotl.runtime.predictor import Predictor
from tfaudiotl.training.options import FitOptions
from tfaudiotl.workflow import train_folder

COLOURS: tuple[Colour, ...] = ("brown", "pink", "white")
CLIPS = 100  # of each colour
TRAINED_ON = 5  # of each colour; the others validate
SAMPLES = int(0.98 * SAMPLE_RATE)


@dataclass(frozen=True)
class DemoResult:
    """What the demo found.

    Attributes:
        accuracy: on the validation clips.
        clips: their number.
        agreement: share of them on which the reloaded .tflite file gives the class that Keras gives.
        metrics: as in ``metrics.json``.
    """

    accuracy: float
    clips: int
    agreement: float
    metrics: dict[str, Any]


def noise(colour: Colour, rng: np.random.Generator) -> np.ndarray:
    """A clip of noise, float32 ``(15680,)``, scaled to its peak."""
    wave = coloured_noise(colour, SAMPLES, rng)
    return wave / np.abs(wave).max()


def write_noise(folder: Path, *, seed: int = 0, clips: int = CLIPS) -> Path:
    """Writes ``clips`` files of each colour, one sub-folder per colour."""
    rng = stream("noise clips", seed)
    for colour in COLOURS:
        (folder / colour).mkdir(parents=True, exist_ok=True)
        for number in range(clips):
            write_audio(folder / colour / f"{colour}-{number:03d}.wav", noise(colour, rng))
    return folder


def run_demo(
    output: str | Path,
    *,
    seed: int = 0,
    overwrite: bool = False,
    echo: Callable[[str], None] = print,
) -> DemoResult:
    """Makes the sounds, trains on 15 of them, validates on 285, exports, reloads, classifies; all in ``output``.

    Args:
        output: folder to write.
        seed: of the noise, the split and the head.
        overwrite: write into a folder that holds something already.
        echo: called with each line that the demo says.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())) and not overwrite:
        raise FileExistsError(f"output={str(output)!r} is there already; overwrite=True writes into it")
    echo(f"Making {CLIPS} clips each of {', '.join(COLOURS)} noise, {SAMPLES / SAMPLE_RATE:.2f} s at 16 kHz")
    clips = Clips.from_directory(write_noise(output / "sounds", seed=seed))
    examples = [clips.load(int(np.flatnonzero(clips.label_ids == label)[0])) for label in range(len(COLOURS))]
    save_figure(spectrograms_figure(examples, clips.class_names, SAMPLE_RATE), output / "spectrograms.png")
    echo(f"Training on {TRAINED_ON} clips of each, validating on {CLIPS - TRAINED_ON}:")
    echo("epoch   loss  accuracy  val_loss  val_accuracy")
    metrics = train_folder(
        clips,
        output / "classifier",
        overwrite=overwrite,
        test=1 - TRAINED_ON / CLIPS,
        fit=FitOptions(epochs=20, batch_size=5, learning_rate=5e-3, seed=seed),
        progress=lambda progress: echo(_row(progress)) if progress.measures else None,
        backbone="yamnet_mini",
        hidden=(),
        dropout=0.0,
    )
    matrix = metrics["confusion_matrix"]
    counted = sum(map(sum, matrix))
    echo(f"Validation accuracy {metrics['accuracy']:.4f} on {counted} clips; confusion matrix (rows are the truth):")
    width = max(map(len, clips.class_names))
    for name, row in zip(clips.class_names, matrix, strict=True):
        echo(f"  {name:>{width}}  {'  '.join(f'{count:4d}' for count in row)}")
    agreement = _compare(output / "classifier", clips, examples, echo)
    echo(
        f"All of it is in {output}:\n"
        f"  sounds/                  the clips\n"
        f"  spectrograms.png         one of each colour\n"
        f"  classifier/model.keras, saved_model/, model.tflite, model_float16.tflite, labels.txt\n"
        f"  classifier/report/       report.md, confusion matrix and training curves\n"
        f"The same with sounds of your own: tfaudiotl train FOLDER -o OUT"
    )
    return DemoResult(metrics["accuracy"], counted, agreement, metrics)


def _row(progress: Progress) -> str:
    loss, accuracy, val_loss, val_accuracy = (
        progress.measures[name] for name in ("loss", "accuracy", "val_loss", "val_accuracy")
    )
    return f"{progress.done:5d} {loss:6.3f} {accuracy:9.3f} {val_loss:9.3f} {val_accuracy:13.3f}"


def _compare(folder: Path, clips: Clips, examples: Sequence[np.ndarray], echo: Callable[[str], None]) -> float:
    """Opens the exported files, classifies every clip with both, and says what one of each colour is."""
    model, small = Predictor(folder / "model.keras"), Predictor(folder / "model.tflite")
    for name, waveform in zip(clips.class_names, examples, strict=True):
        scores = small.scores(waveform, sample_rate=SAMPLE_RATE)
        heard = small.class_names[int(scores.argmax())]
        echo(f"  model.tflite hears {heard} in a clip of {name} noise (score {scores.max():.3f})")
    best = [predictor.scores_of_files(clips.paths).argmax(axis=1) for predictor in (model, small)]
    agreement = float((best[0] == best[1]).mean())
    echo(f"  model.tflite and model.keras agree on {round(agreement * len(clips))} of {len(clips)} clips")
    return agreement
