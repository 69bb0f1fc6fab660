"""A search over layer, head, rates, dropout, augmentation and depth of unfreezing, by KerasTuner."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from tfaudiotl._files import claim
from tfaudiotl._fingerprint import fingerprint, model_parts, versions
from tfaudiotl._threads import OnProgress, Progress, ignore
from tfaudiotl.augment.layers import Augmentation
from tfaudiotl.backbones.embedding import cut_backbone, resolve_embedding
from tfaudiotl.backbones.registry import get_backbone
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.data.clips import Clips
from tfaudiotl.data.splits import Folds
from tfaudiotl.data.table import clips_parts
from tfaudiotl.errors import check_choice, check_number
from tfaudiotl.evaluation.metrics import evaluate_scores
from tfaudiotl.markdown import markdown_table
from tfaudiotl.training.batches import Augment, checked_augment
from tfaudiotl.training.compare import window_scores
from tfaudiotl.training.fine_tune import fine_tune
from tfaudiotl.training.options import VAL, FineTuneOptions
from tfaudiotl.training.train import inner_split

Method = Literal["bayesian", "random"]
SCORE = "score"


@dataclass(frozen=True)
class SearchSpace:
    """What is tried.

    Attributes:
        embedding: layers to classify on.
        hidden: widths of the head's hidden layers.
        dropout: of the head.
        trainable: blocks that train: the last n, "layer12" and those after it, or "all"; 0 trains the head alone.
        head_learning_rate: from, to; drawn evenly in its logarithm.
        learning_rate: likewise, of the blocks.
        label_smoothing: shares.
        copies: with ``augment``: changed versions of each sound, 0 for none.
    """

    embedding: Sequence[str] = ("embedding",)
    hidden: Sequence[Sequence[int]] = ((), (128,), (256,))
    dropout: Sequence[float] = (0.0, 0.2, 0.4)
    trainable: Sequence[int | str] = (0, 1, 2, 4)
    head_learning_rate: tuple[float, float] = (5e-4, 1e-2)
    learning_rate: tuple[float, float] = (5e-5, 2e-3)
    label_smoothing: Sequence[float] = (0.0, 0.1)
    copies: Sequence[int] = (0,)

    def draw(self, hp: Any) -> dict[str, dict[str, Any]]:
        """A point of the space by KerasTuner's ``hp``: arguments of ``build_classifier`` and of ``fine_tune``."""

        def choice(name: str) -> Any:
            # KerasTuner takes numbers and texts; lists and mixtures go as JSON.
            return json.loads(hp.Choice(name, [json.dumps(value) for value in getattr(self, name)]))

        def rate(name: str) -> float:
            low, high = getattr(self, name)
            return float(hp.Float(name, low, high, sampling="log"))

        return {
            "build_classifier": {name: choice(name) for name in ("embedding", "hidden", "dropout")},
            "fine_tune": {
                **{name: choice(name) for name in ("trainable", "label_smoothing", "copies")},
                **{name: rate(name) for name in ("head_learning_rate", "learning_rate")},
            },
        }


@dataclass(frozen=True)
class TrialResult:
    """A point of the space: arguments of ``build_classifier`` and ``fine_tune``; the mean accuracy over the folds."""

    settings: dict[str, dict[str, Any]]
    score: float


@dataclass
class Search:
    """What ``tune`` found.

    Attributes:
        trials: best first.
        folds: that each score is the mean over.
    """

    trials: list[TrialResult] = field(default_factory=list)
    folds: int = 0

    @property
    def best(self) -> dict[str, dict[str, Any]]:
        """The best trial's arguments of ``build_classifier`` and ``fine_tune``."""
        return self.trials[0].settings

    def to_markdown(self, top: int = 10) -> str:
        """The best trials as a table."""
        names = [name for group in self.best.values() for name in group]
        rows = [
            (f"{trial.score:.4f}", *(_short(value) for group in trial.settings.values() for value in group.values()))
            for trial in self.trials[:top]
        ]
        return markdown_table(["Accuracy", *names], rows)


def tune(
    clips: Clips,
    directory: str | Path,
    *,
    backbone: str = "yamnet",
    weights: str | None = "audioset",
    space: SearchSpace | None = None,
    trials: int = 20,
    folds: Folds = 3,
    method: Method = "bayesian",
    augment: bool | Augmentation | Sequence[Augmentation] | Augment | None = None,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
    progress: OnProgress = ignore,
    **options: Any,
) -> Search:
    """Searches settings for a classifier; the score of a trial is its mean accuracy over folds.

    Nothing leaks: files and groups stay on one side of a fold, a fold's clips decide neither when its training stops
    nor which weights are kept (a part of the others does), and clips to test on in the end are not given at all. The
    best of many trials looks better than it is: measure it on those.

    Args:
        clips: to train on.
        directory: KerasTuner's files: the same call after a kill goes on with the trial that was cut off.
        backbone: a name from ``list_backbones()``.
        weights: as for the backbone's builder.
        space: what is tried.
        trials: points tried, at most.
        folds: the number of folds to draw, or "given" for the clips' own fold column.
        method: "bayesian" or "random".
        augment: as for ``fine_tune``; how much of it is ``space.copies``.
        seed: of the search, the folds and the trainings.
        say: gets a line per trial.
        progress: called after each trial.
        **options: fields of ``FineTuneOptions`` that are not searched, such as ``epochs``.

    Raises:
        ImportError: KerasTuner is not installed.
        ValueError: an argument out of range; a ``directory`` of another search.
        TypeError: an option that ``fine_tune`` does not have, or that is searched.
    """
    try:
        import keras_tuner
    except ImportError as error:
        raise ImportError("tune() needs KerasTuner: pip install tfaudiotl[tune]") from error
    check_choice("method", method, Method)
    check_number("trials", trials, least=1, whole=True)
    asked = space or SearchSpace()
    _check(asked, backbone, options)
    if not augment and any(asked.copies):
        raise ValueError(f"copies={list(asked.copies)}: needs augment=, which makes them")
    # Every split before the first trial: a class that is too small is told at once.
    parts = [(*inner_split(train, val=VAL, seed=seed), test) for _, train, test in clips.folds(folds, seed=seed)]

    def score(hp: Any) -> float:
        settings = asked.draw(hp)
        return float(np.mean([_fold_score(*part, settings) for part in parts]))

    def _fold_score(learn: Clips, stop: Clips, test: Clips, settings: dict[str, dict[str, Any]]) -> float:
        model = build_classifier(
            backbone,
            class_names=clips.class_names,
            weights=weights,
            seed=seed,
            multi_label=clips.multi_label,
            **settings["build_classifier"],
        )
        tuning = {**options, **settings["fine_tune"]}
        changes = augment if tuning["copies"] else None
        fine_tune(model, learn, stop, augment=changes, seed=seed, verbose=False, **tuning)
        scores = window_scores(model, test, tuning.get("window_seconds", 10.0))
        measured = evaluate_scores(scores, test.targets, class_names=clips.class_names, multi_label=clips.multi_label)
        keras.backend.clear_session()
        return measured.accuracy

    directory = Path(directory)
    asked_for = {"backbone": backbone, "weights": weights, "method": method, "folds": folds, "seed": seed, **options}
    spec = get_backbone(backbone)
    names = [name for names in asked.embedding for name in resolve_embedding(spec, names).layers]
    network = cut_backbone(spec, names, weights=weights)
    made_from = {
        **{f"clips: {name}": part for name, part in clips_parts(clips).items()},
        **{f"backbone: {name}": part for name, part in model_parts(network).items()},
        "augment": fingerprint(
            augment=checked_augment(augment, sample_rate=get_backbone(backbone).frontend.sample_rate)
        ),
        "versions": versions(),
    }
    _claim(directory, {**asked_for, "space": asdict(asked), **made_from})
    objective = keras_tuner.Objective(SCORE, "max")
    oracles = {
        "bayesian": keras_tuner.oracles.BayesianOptimizationOracle,
        "random": keras_tuner.oracles.RandomSearchOracle,
    }

    class Tuner(keras_tuner.Tuner):
        """KerasTuner's search, a trial being a cross-validation."""

        def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
            found = score(trial.hyperparameters)
            if say:
                say(f"trial {trial.trial_id}: {found:.4f}  {asked.draw(trial.hyperparameters)}")
            finished = sum(each.status == "COMPLETED" for each in self.oracle.trials.values())
            progress(Progress("Trials", finished + 1, trials, {"accuracy": found}))
            return {SCORE: found}

        def load_model(self, trial: Any) -> None:
            return None

    oracle = oracles[method](objective=objective, max_trials=trials, seed=seed)
    search = Tuner(oracle=oracle, directory=str(directory), project_name="trials", overwrite=False)
    search.search(verbose=0)
    best = search.oracle.get_best_trials(trials)
    return Search([TrialResult(asked.draw(trial.hyperparameters), float(trial.score)) for trial in best], len(parts))


def _check(space: SearchSpace, backbone: str, options: dict[str, Any]) -> None:
    """ValueError or TypeError before anything is tried or written."""
    spec = get_backbone(backbone)
    for names in space.embedding:
        resolve_embedding(spec, names)
    own = {field.name for field in fields(FineTuneOptions)}
    known = own | set(inspect.signature(fine_tune).parameters)
    searched = {field.name for field in fields(SearchSpace)} | {"seed", "augment", "verbose"}
    allowed = known - searched - {"model", "train", "val", "options", "workdir"}
    for name in options:
        if name not in allowed:
            raise TypeError(f"{name}={options[name]!r}: tune() takes besides its own {', '.join(sorted(allowed))}")
    FineTuneOptions(**{name: options[name] for name in own & set(options)})


def _claim(directory: Path, settings: dict[str, Any]) -> None:
    """Refuses a folder with the trials of another search."""
    claim(
        directory,
        "search.json",
        json.loads(json.dumps(settings, default=str)),
        refuse=lambda changed: ValueError(
            f"directory={str(directory)!r} holds another search ({', '.join(changed)}); give another folder"
        ),
    )


def _short(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)
