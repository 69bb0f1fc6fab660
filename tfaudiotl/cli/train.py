"""``tfaudiotl train``, ``distill`` and ``demo``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tfaudiotl.cli.console import Excludes, Library, Needs, command, list_left_out, load_tensorflow, progress_shown, say
from tfaudiotl.cli.options import (
    AllowSilence,
    Backbone,
    ClassFolder,
    Embedding,
    FoldPattern,
    GroupPattern,
    LabelPattern,
    LabelSeparator,
    OnError,
    OnErrorOption,
    Output,
    Overwrite,
    Seed,
    Weights,
    check_backbone,
    check_output,
    load_clips,
    positive,
    pretrained,
    regex,
    sound_files,
    split_names,
)


@command
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write.")] = Path("tfaudiotl_demo"),
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Try all of it in about a minute, without a network: noise colours from five clips of each."""
    check_output(output, overwrite=overwrite)
    load_tensorflow()
    from tfaudiotl.demo import run_demo

    run_demo(output, seed=seed, overwrite=overwrite, echo=typer.echo)


@command
def train(
    folder: ClassFolder,
    output: Output,
    weights: Weights = None,
    backbone: Backbone = None,
    embedding: Embedding = None,
    head: Annotated[
        Literal["dense", "average", "statistics", "attention", "gru", "lstm", "conv"],
        typer.Option(help="How the patches of a clip become one result."),
    ] = "dense",
    solver: Annotated[
        Literal["adam", "discriminant"],
        typer.Option(help="How the head is trained; discriminant is a linear one in closed form."),
        Excludes(("--fine-tune",)),
        Excludes(("--epochs", "--batch-size", "--learning-rate", "--patience", "--val", "--dropout"), "discriminant"),
    ] = "adam",
    hidden: Annotated[
        str | None,
        typer.Option(
            help="Widths of the head's hidden layers, with commas; '' for none. 128 if not given, none with "
            "--solver discriminant.",
            show_default=False,
        ),
    ] = None,
    dropout: Annotated[float, typer.Option(min=0, max=1, help="Dropout in the head.")] = 0.2,
    epochs: Annotated[
        int, typer.Option(min=1, help="Maximum number of epochs."), Library(("fine_tune.head_epochs",))
    ] = 100,
    batch_size: Annotated[int, typer.Option(min=1, help="Number of clips per step.")] = 32,
    learning_rate: Annotated[
        float,
        typer.Option(callback=positive, help="Adam's learning rate."),
        Library(("fine_tune.head_learning_rate",)),
    ] = 2e-3,
    patience: Annotated[
        int, typer.Option(min=1, help="Number of epochs without a better validation loss before stopping.")
    ] = 5,
    augment: Annotated[bool, typer.Option("--augment", help="Train on changed versions of the clips too.")] = False,
    balance: Annotated[
        bool | None,
        typer.Option(
            help="Give rare classes more weight; the default where each clip has one class.", show_default=False
        ),
    ] = None,
    val: Annotated[float, typer.Option(help="Share of the clips trained on that tells when to stop.")] = 0.15,
    test: Annotated[
        str,
        typer.Option(
            help="What is reported when there are no folds: a share of the clips, or the folder of the data set's test "
            "part, with the same classes."
        ),
        Excludes(("--folds", "--fold-pattern")),
    ] = "0.2",
    folds: Annotated[
        int | None,
        typer.Option(min=2, help="Number of folds to cross-validate with."),
        Library(("k",)),
        Excludes(("--fold-pattern",)),
    ] = None,
    label_pattern: LabelPattern = None,
    label_separator: LabelSeparator = None,
    fold_pattern: FoldPattern = None,
    group_pattern: GroupPattern = None,
    window_seconds: Annotated[
        float, typer.Option(callback=positive, help="Longer clips are cut into windows of this length; seconds.")
    ] = 10.0,
    fine_tune: Annotated[
        str | None,
        typer.Option(
            help="Train the backbone too: a number of its last blocks, the block to begin at (such as layer12), or all."
        ),
        Library(("trainable", "fine_tune.trainable")),
    ] = None,
    fine_tune_epochs: Annotated[
        int,
        typer.Option(min=1, help="With --fine-tune: maximum number of epochs for the blocks."),
        Needs("--fine-tune"),
        Library(("fine_tune.epochs",)),
    ] = 20,
    fine_tune_rate: Annotated[
        float,
        typer.Option(callback=positive, help="With --fine-tune: Adam's highest learning rate for the blocks."),
        Needs("--fine-tune"),
        Library(("fine_tune.learning_rate",)),
    ] = 3e-4,
    gradual: Annotated[
        bool,
        typer.Option("--gradual", help="With --fine-tune: unfreeze one block after another."),
        Needs("--fine-tune"),
    ] = False,
    label_smoothing: Annotated[float, typer.Option(help="Label smoothing, 0 to 1.")] = 0.0,
    focal: Annotated[
        float,
        typer.Option(min=0, help="The focal loss's gamma; 0 for cross-entropy."),
        Library(("focal_gamma",)),
    ] = 0.0,
    precision: Annotated[
        Literal["float32", "float16", "bfloat16", "auto"], typer.Option(help="In which the network computes.")
    ] = "float32",
    background: Annotated[
        str | None, typer.Option(help="The class that is no sound of interest: scored, but never an event.")
    ] = None,
    seed: Seed = 0,
    on_error: OnErrorOption = OnError.RAISE,
    allow_silence: AllowSilence = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted training."), Excludes(("--overwrite",))
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Train, evaluate and export a classifier from a folder of recordings."""
    if hidden is None:
        hidden = "128" if solver == "adam" else ""
    widths = _whole_numbers(hidden, "--hidden")
    backbone, weights = pretrained(backbone, weights)
    share = _share(test)
    unfinished = output / ".work" / "settings.json"
    if unfinished.is_file() and not (overwrite or resume):
        raise FileExistsError(
            f"--output {output} holds an unfinished training; --resume continues it, --overwrite replaces it"
        )
    check_output(output, overwrite=overwrite or resume, data=[folder] if share is not None else [folder, Path(test)])
    clips = load_clips(
        folder,
        label_pattern=label_pattern,
        label_separator=label_separator,
        fold_pattern=fold_pattern,
        group_pattern=group_pattern,
        on_error=on_error,
    )
    if share is None:
        held = load_clips(
            Path(test),
            label_pattern=label_pattern,
            label_separator=label_separator,
            group_pattern=group_pattern,
            on_error=on_error,
            class_names=clips.class_names,
            classes_of=str(folder),
        )
        clips = type(clips).from_parts(train=clips, test=held)
    load_tensorflow()
    from tfaudiotl.backbones.scores import check_background
    from tfaudiotl.devices import set_precision
    from tfaudiotl.errors import ExportError
    from tfaudiotl.training.options import FineTuneOptions, FitOptions
    from tfaudiotl.workflow import train_folder

    check_background(background, clips.class_names)
    set_precision(precision)

    given: dict[str, Any] = {} if share is None else {"test": share}
    if background is not None:
        given["background"] = background
    common: dict[str, Any] = {
        "batch_size": batch_size,
        "patience": patience,
        "class_weight": "auto" if balance is None else "balanced" if balance else None,
        "label_smoothing": label_smoothing,
        "seed": seed,
    }
    if focal:
        common |= {"loss": "focal", "focal_gamma": focal}
    how: dict[str, Any] = {}
    if fine_tune is None:
        how["fit"] = FitOptions(epochs=epochs, learning_rate=learning_rate, solver=solver, **common)
    else:
        how["fine_tune"] = FineTuneOptions(
            trainable=int(fine_tune) if fine_tune.isdigit() else fine_tune,
            head_epochs=epochs,
            epochs=fine_tune_epochs,
            head_learning_rate=learning_rate,
            learning_rate=fine_tune_rate,
            gradual=gradual,
            **common,
        )
    try:
        with progress_shown() as progress:
            metrics = train_folder(
                clips,
                output,
                overwrite=overwrite,
                resume=resume,
                **how,
                progress=progress,
                folds="given" if fold_pattern else folds,
                val=val,
                **given,
                window_seconds=window_seconds,
                on_error=on_error.value,
                allow_silence=allow_silence,
                augment=augment,
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
        if unfinished.is_file():
            say("Finished epochs are kept: the same command with --resume goes on.")
        raise
    _print_summary(metrics, output)


def _share(test: str) -> float | None:
    """The share that ``--test`` gives; None: it gives a folder."""
    try:
        return float(test)
    except ValueError:
        return None


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
    typer.echo(metrics["how_measured"])
    for check in metrics["exports"]:
        typer.echo(f"  {check['file']}: {check['bytes'] / 1e6:.1f} MB, agreement with Keras {check['agreement']:.4f}")
    if metrics["skipped"]:
        typer.echo(f"  {len(metrics['skipped'])} sounds were skipped; metrics.json and the report list them")
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in metrics["seconds"].items())
    typer.echo(f"Seconds: {stages}")
    typer.echo(f"All of it is in {output}; read {output / 'report' / 'report.md'}")
    typer.echo("In Python: import keras, tfaudiotl; then keras.saving.load_model opens model.keras")


def _teacher(name: str) -> str:
    if not name.endswith(".keras"):
        try:
            return check_backbone(name) or name
        except typer.BadParameter as error:
            raise typer.BadParameter(error.message.replace("allowed are", "allowed are a .keras file,")) from None
    if not os.path.isfile(name):
        raise typer.BadParameter(f"{name}: no such file")
    return name


@command
def distill(
    folders: Annotated[list[Path], typer.Argument(help="Folders of recordings; labels are not needed.")],
    output: Output,
    teacher: Annotated[
        str,
        typer.Option(callback=_teacher, help="A backbone's name, or a .keras classifier of yours."),
        Library(("model", "backbone")),
    ] = "yamnet",
    weights: Annotated[str, typer.Option(help="Weights of a teacher that is a backbone.")] = "audioset",
    student: Annotated[str, typer.Option(callback=check_backbone, help="The student's backbone.")] = "yamnet_mini",
    student_weights: Annotated[
        str | None,
        typer.Option(help="What the student starts from: a preset, a file or 'random', the default for a backbone."),
    ] = None,
    embedding: Annotated[
        str | None, typer.Option(help="Layers of the teacher to match besides its own embedding, with commas.")
    ] = None,
    exclude: Annotated[
        str | None, typer.Option(callback=regex, help="Skip files whose path matches this regex.")
    ] = None,
    patches: Annotated[int, typer.Option(min=1, help="Number of examples of 0.975 s to train on.")] = 60_000,
    epochs: Annotated[int, typer.Option(min=1, help="Number of passes over the examples.")] = 4,
    batch_size: Annotated[int, typer.Option(min=1, help="Number of examples per step.")] = 16,
    learning_rate: Annotated[float, typer.Option(callback=positive, help="AdamW's highest learning rate.")] = 2e-3,
    scores_weight: Annotated[
        float, typer.Option(help="Weight of the scores' loss; that of each embedding is 1.")
    ] = 0.1,
    temperature: Annotated[
        float,
        typer.Option(
            help="Softens the teacher's scores: above 1 the student also learns which wrong classes are likely."
        ),
    ] = 1.0,
    seed: Seed = 0,
    on_error: OnErrorOption = OnError.RAISE,
    overwrite: Overwrite = False,
) -> None:
    """Shrink a network: a small student learns to match a large teacher on unlabelled sound."""
    if teacher.endswith(".keras") and weights != "audioset":
        raise typer.BadParameter(f"--weights are a backbone's: --teacher {teacher} has its own")
    check_output(output, overwrite=overwrite, data=folders)
    say(f"Reading {len(sound_files(folders)):,} recordings")
    load_tensorflow()
    from tfaudiotl.backbones.weight_files import open_keras
    from tfaudiotl.training.distill import DistillOptions, distill as run, load_folders
    from tfaudiotl.workflow import save_student

    options = DistillOptions(
        patches=patches,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        scores_weight=scores_weight,
        temperature=temperature,
        seed=seed,
    )
    chosen: Any = open_keras(teacher, argument="teacher") if teacher.endswith(".keras") else teacher
    start = student_weights or ("random" if isinstance(chosen, str) else "audioset")
    sounds, skipped = load_folders(folders, exclude=exclude, on_error=on_error.value)
    list_left_out(skipped)
    with progress_shown() as progress:
        result = run(
            chosen,
            sounds,
            student=student,
            weights=weights,
            student_weights=None if start == "random" else start,
            embedding=split_names(embedding) or (),
            options=options,
            progress=progress,
        )
    for path in save_student(result, output):
        typer.echo(f"Wrote {path}")
    last = {name[4:]: values[-1] for name, values in result.history.items() if name.startswith("val_")}
    parts = ", ".join(f"{name.removesuffix('_loss')} {value:.3f}" for name, value in last.items() if name != "loss")
    typer.echo(f"Loss on held-out examples: {last['loss']:.3f}{f' ({parts})' if parts else ''}; lower is better")
    typer.echo("Seconds: " + ", ".join(f"{stage} {taken:.1f}" for stage, taken in result.seconds.items()))
