"""The model card: what the classifier is, how it was measured, where it fails, how to run it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfaudiotl.backbones.embedding import resolve_embedding
from tfaudiotl.backbones.frontend import LogMelSpec, WindowSpec
from tfaudiotl.backbones.registry import get_backbone
from tfaudiotl.backbones.spec import BackboneSpec
from tfaudiotl.classifiers.anatomy import parts
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.export.check import Check, checks_table
from tfaudiotl.export.prepare import frontend_spec
from tfaudiotl.markdown import Section, escape_markdown, markdown_table
from tfaudiotl.training.train import TrainingResult

_RUN = """**Python**, files of any length and rate:

```python
import tfaudiotl as tl

for event in tl.Predictor("model.keras").predict_file("street.wav"):
    print(event)
```

As a plain Keras model; `import tfaudiotl` registers the layers that the file is made of:

```python
import keras
import tfaudiotl

model = keras.saving.load_model("model.keras")
model.summary()
```

The .tflite files and `saved_model/` need no tfaudiotl: `ai_edge_litert.interpreter.Interpreter("model.tflite")`, or
`tf.saved_model.load("saved_model")`. They take {sample_rate:,} Hz mono float32 samples in [-1, 1].

**Android**: put `model.tflite` into `assets/` and use MediaPipe's `com.google.mediapipe:tasks-audio`:
`AudioClassifier.createFromFile(context, "model.tflite")`. Labels and sample rate are read from the file's metadata.

**iOS**: LiteRT's Swift package (`TensorFlowLiteSwift`): `Interpreter(modelPath:)`, one input of {window:,} samples, and
the labels of `labels.txt`, in order.

**Browser**: `@mediapipe/tasks-audio`: `AudioClassifier.createFromModelPath(fileset, "model.tflite")`, then
`classify(samples, {sample_rate})`."""


def model_card(
    result: TrainingResult, checks: Sequence[Check], *, title: str, options: Mapping[str, Any], version: str
) -> str:
    """The card of a trained classifier in Markdown.

    Args:
        result: what ``train_classifier`` gave.
        checks: of the exported files.
        title: the first line, plain text.
        options: arguments of ``build_classifier`` that differ from its defaults.
        version: of the package.
    """
    defaults = {name: p.default for name, p in inspect.signature(build_classifier).parameters.items()}
    if result.shrinkage is not None:
        defaults["hidden"] = ()
    options = {**defaults, **options}
    spec = get_backbone(options["backbone"])
    grid = frontend_spec(result.model)
    sections = [
        Section("Data", _data(result)),
        Section("Model", _model(result, spec, options, version)),
        Section("Measured", _measured(result)),
        Section("Limits", _limits(result, grid)),
        Section("Files", f"Each was opened again and run beside the Keras model.\n\n{checks_table(checks)}"),
        Section("How to run it", _RUN.format(sample_rate=grid.sample_rate, window=grid.min_samples)),
    ]
    return "\n".join([f"# {escape_markdown(title)}\n", *(section.to_markdown() for section in sections)])


def _data(result: TrainingResult) -> str:
    clips = result.clips
    counts = np.asarray(clips.targets).sum(axis=0).astype(int)
    rows = [(escape_markdown(name), str(count)) for name, count in zip(clips.class_names, counts, strict=True)]
    left_out = f" {len(result.skipped)} sounds were left out; report/report.md says why." if result.skipped else ""
    kind = "a clip may have several labels" if clips.multi_label else "one label a clip"
    return f"{len(clips)} clips, {kind}.{left_out}\n\n{markdown_table(['Class', 'Clips'], rows)}"


def _model(result: TrainingResult, spec: BackboneSpec, options: Mapping[str, Any], version: str) -> str:
    weights = options["weights"] or "random"
    if Path(weights).exists():
        weights = f"{Path(weights).name} (a local copy)"  # the folder says nothing to others
    recipe = resolve_embedding(spec, options["embedding"], options.get("pooling"))
    pooled = "" if recipe.pooling == "avg" else f" (pooling {recipe.pooling})"
    found = parts(result.model)
    block_of = {layer.name: block for block, layers in found.blocks.items() for layer in layers}
    trained = [block_of.get(each.name, each.name) for each in found.body if each.trainable_weights]
    tuned = f"fine-tuned ({', '.join(dict.fromkeys(trained))})" if trained else "frozen"
    stages = [epochs for stage, epochs in result.best_epochs.items() if stage != "head"]
    if stages and not any(stages):
        tuned = "as it came (fine-tuning it made nothing better on held-out clips and was taken back)"
    rows = [
        ("Backbone", f"{spec.name}: {spec.description}"),
        ("Its weights", f"{weights} (licence {spec.license}; {spec.source})"),
        ("Embedding", ", ".join(recipe.layers) + pooled),
        ("Strategy", f"head trained on embeddings, backbone {tuned}"),
        ("Head", f"{options['head']}, hidden layers {tuple(options['hidden'])}, dropout {options['dropout']}"),
        ("Training", result.how_trained()),
        ("Parameters", f"{result.model.count_params():,}"),
        ("Made with", f"tfaudiotl {version}"),
    ]
    return markdown_table(["Part", "What"], [(name, escape_markdown(value)) for name, value in rows])


def _measured(result: TrainingResult) -> str:
    return f"{result.how_measured()}\n\n{result.evaluation.to_markdown()}"


def _limits(result: TrainingResult, grid: LogMelSpec | WindowSpec) -> str:
    band = f", {grid.min_hz:,.0f} to {grid.max_hz:,.0f} Hz" if isinstance(grid, LogMelSpec) else ""
    worst = min(result.evaluation.per_class, key=lambda measures: measures.f1)
    weakest = (
        f"The weakest class is {escape_markdown(worst.name)}, with an F1 of {worst.f1:.3f}."
        if worst.f1 < 1
        else "No clip they rest on was mistaken, which says that these were easy rather than that it never errs."
    )
    lines = [
        "It knows its classes only, and gives every sound a score for each of them; sounds of no class need a "
        "threshold, or a class of their own with such recordings.",
        f"The figures hold for recordings like those above. {weakest}",
        f"It hears {grid.sample_rate:,} Hz mono{band}, in patches of {grid.min_samples / grid.sample_rate:g} s; "
        "shorter sounds are padded with zeros.",
    ]
    return "\n".join(f"- {line}" for line in lines)
