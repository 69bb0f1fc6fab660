"""``tfaudiotl train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tfaudiotl.cli.console import errors, training_bars
from tfaudiotl.cli.main import app
from tfaudiotl.cli.options import (
    Backbone,
    ClassFolder,
    OnError,
    OnErrorOption,
    Output,
    Overwrite,
    Weights,
    load_clips,
    pretrained,
    split_names,
)


@app.command()
def train(
    folder: ClassFolder,
    output: Output,
    weights: Weights = None,
    backbone: Backbone = None,
    embedding: Annotated[
        str | None,
        typer.Option(
            "--embedding",
            "--layer",
            help="Layer, or layers with commas, to classify on; the backbone's own by default.",
        ),
    ] = None,
    head: Annotated[
        str, typer.Option(help="dense, average, attention, gru, lstm or conv: how a clip's patches become one result.")
    ] = "dense",
    hidden: Annotated[str, typer.Option(help="Widths of the head's hidden layers, with commas; '' for none.")] = "128",
    dropout: Annotated[float, typer.Option(help="Dropout in the head.")] = 0.2,
    epochs: Annotated[int, typer.Option(help="Epochs at most.")] = 100,
    batch_size: Annotated[int, typer.Option(help="Clips per step.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Adam's learning rate.")] = 2e-3,
    patience: Annotated[int, typer.Option(help="Epochs without a better validation loss before stopping.")] = 5,
    augment: Annotated[bool, typer.Option("--augment", help="Train on changed versions of the clips too.")] = False,
    balance: Annotated[bool, typer.Option(help="Weigh classes by the inverse of their share.")] = True,
    val: Annotated[float, typer.Option(help="Share of the clips held out, when there are no folds.")] = 0.2,
    folds: Annotated[int | None, typer.Option(help="Cross-validate with so many folds.")] = None,
    fold_pattern: Annotated[
        str | None,
        typer.Option(help=r"Cross-validate with folds from the file names: a regex such as '^(\d)-'."),
    ] = None,
    group_pattern: Annotated[
        str | None,
        typer.Option(help="Regex: files with the same first group stay on one side of every split."),
    ] = None,
    window_seconds: Annotated[float, typer.Option(help="Longer clips are cut into windows of this length.")] = 10.0,
    fine_tune: Annotated[
        str | None,
        typer.Option(help="Train the backbone too: its last n blocks, from a block such as layer12 on, or all."),
    ] = None,
    fine_tune_epochs: Annotated[int, typer.Option(help="Epochs at most with the backbone's blocks.")] = 20,
    fine_tune_rate: Annotated[float, typer.Option(help="Adam's learning rate for them, at its highest.")] = 3e-4,
    gradual: Annotated[bool, typer.Option("--gradual", help="Unfreeze one block after another.")] = False,
    label_smoothing: Annotated[float, typer.Option(help="With --fine-tune: share of the target spread out.")] = 0.0,
    focal: Annotated[float, typer.Option(help="With --fine-tune: focal loss with this gamma; 0 for none.")] = 0.0,
    precision: Annotated[str, typer.Option(help="float32, float16, bfloat16, or auto.")] = "float32",
    seed: Annotated[int, typer.Option(help="Seed of splits, weights and batches.")] = 0,
    on_error: OnErrorOption = OnError.RAISE,
    allow_silence: Annotated[bool, typer.Option("--allow-silence", help="Keep clips that are all zeros.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted training.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Train, evaluate and export a classifier from a folder of recordings."""
    if folds is not None and fold_pattern is not None:
        raise typer.BadParameter("give --folds or --fold-pattern, not both")
    widths = _whole_numbers(hidden, "--hidden")
    backbone, weights = pretrained(backbone, weights)
    with errors(train):
        clips = load_clips(folder, fold_pattern, group_pattern, on_error)
        from tfaudiotl.errors import ExportError
        from tfaudiotl.training.head import FitOptions
        from tfaudiotl.training.options import FineTuneOptions
        from tfaudiotl.training.precision import set_precision
        from tfaudiotl.workflow import train_folder

        set_precision(precision)

        fit = FitOptions(
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            patience=patience,
            class_weight="balanced" if balance else None,
            seed=seed,
        )
        tuning = None
        if fine_tune is not None and augment:
            raise ValueError("--augment is for heads; not with --fine-tune (in Python: fine_tune(augment=...))")
        if fine_tune is not None:
            tuning = FineTuneOptions(
                blocks=int(fine_tune) if fine_tune.isdigit() else fine_tune,
                head_epochs=epochs,
                epochs=fine_tune_epochs,
                batch_size=batch_size,
                head_learning_rate=learning_rate,
                learning_rate=fine_tune_rate,
                patience=patience,
                gradual=gradual,
                label_smoothing=label_smoothing,
                focal_gamma=focal,
                class_weight="balanced" if balance else None,
                seed=seed,
            )
        elif gradual or label_smoothing or focal:
            raise ValueError("--gradual, --label-smoothing and --focal need --fine-tune")
        try:
            with training_bars() as progress:
                metrics = train_folder(
                    clips,
                    output,
                    overwrite=overwrite,
                    resume=resume,
                    fit=fit,
                    fine_tune=tuning,
                    progress=progress,
                    folds="given" if fold_pattern else folds,
                    val=val,
                    window_seconds=window_seconds,
                    on_error=on_error.value,
                    allow_silence=allow_silence,
                    **({"augment": True} if augment else {}),
                    backbone=backbone,
                    weights=weights,
                    embedding=split_names(embedding),
                    head=head,
                    hidden=widths,
                    dropout=dropout,
                )
        except FileExistsError:
            raise  # refused before anything was trained
        except (KeyboardInterrupt, OSError, ExportError):
            if (output / ".work" / "settings.json").is_file():
                typer.secho("Finished epochs are kept: the same command with --resume goes on.", err=True)
            raise
    _print_summary(metrics, output)


def _whole_numbers(text: str, option: str) -> list[int]:
    try:
        return [int(width) for width in text.split(",") if width.strip()]
    except ValueError:
        raise typer.BadParameter(f"{option} {text!r}: whole numbers with commas, such as '256,128'") from None


def _print_summary(metrics: dict[str, Any], output: Path) -> None:
    if "folds" in metrics:
        accuracies = ", ".join(f"{fold['accuracy']:.3f}" for fold in metrics["folds"])
        typer.echo(
            f"Accuracy over folds: {metrics['accuracy_mean']:.4f} +- {metrics['accuracy_std']:.4f} ({accuracies})"
        )
    else:
        typer.echo(f"Accuracy on held-out clips: {metrics['accuracy']:.4f}, macro F1 {metrics['macro_f1']:.4f}")
    for check in metrics["exports"]:
        typer.echo(f"  {check['file']}: {check['bytes'] / 1e6:.1f} MB, agreement with Keras {check['agreement']:.4f}")
    if metrics["skipped"]:
        typer.echo(f"  {len(metrics['skipped'])} sounds were left out; metrics.json and the report list them")
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in metrics["seconds"].items())
    typer.echo(f"Seconds: {stages}")
    typer.echo(f"All of it is in {output}; read {output / 'report' / 'report.md'}")
