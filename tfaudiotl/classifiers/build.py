"""From a backbone's name, or from it and a head of scikit-learn, to a sound classifier, compiled."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import keras
import numpy as np

from tfaudiotl.backbones.assembly import Input, to_clips, valid_patches
from tfaudiotl.backbones.embedding import cut_backbone, patch_embedding, plain_name, resolve_embedding
from tfaudiotl.backbones.registry import get_backbone
from tfaudiotl.backbones.scores import check_background, check_class_names, set_background
from tfaudiotl.backbones.spec import Pooling
from tfaudiotl.classifiers.anatomy import parts
from tfaudiotl.classifiers.edit import BatchNorm, set_blocks
from tfaudiotl.classifiers.heads import Head, SequenceHead, compile_classifier, dense_head, sequence_head
from tfaudiotl.embeddings.probe import probe_layers

if TYPE_CHECKING:
    from tfaudiotl.data.clips import Clips


Aggregate = Literal["scores", "embeddings"]


def build_classifier(
    backbone: str = "yamnet",
    *,
    class_names: Sequence[str],
    embedding: str | Sequence[str] | None = None,
    head: Head = "dense",
    hidden: Sequence[int] = (128,),
    dropout: float = 0.2,
    multi_label: bool = False,
    pooling: Pooling | None = None,
    aggregate: Aggregate = "scores",
    trainable: int | str = 0,
    batch_norm: BatchNorm | None = None,
    weights: str | None = "audioset",
    input: Input = "waveform",
    samples: int | None = None,
    learning_rate: float = 1e-3,
    seed: int | None = None,
    name: str | None = None,
    background: str | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    probe_clips: Clips | None = None,
) -> keras.Model:
    """A sound classifier: backbone, embedding, head, mean over the clip's patches. One flat Keras model.

    It comes compiled (Adam; cross-entropy on one-hot or multi-hot targets; accuracy), so ``fit`` works at
    once; call ``compile`` yourself for anything else.

    Args:
        backbone: a name from ``list_backbones()``.
        class_names: in the order of the targets' columns; kept inside the model.
        embedding: layer name or names, from ``embedding_layers(backbone)``, or the name of a recipe, from
            ``embedding_recipes(backbone)``; None: the backbone's own; "auto": what ``probe_layers`` recommends on
            ``probe_clips``.
        head: "dense" on each patch, or on the mean embedding (see ``aggregate``); "average": the latter; on the
            patches together: "statistics", "attention", "gru", "lstm", "conv" (``sequence_head`` says what they are).
        hidden: widths of the head's hidden layers; ``()`` gives a linear classifier.
        dropout: dropout in the head, in [0, 1).
        multi_label: independent classes (sigmoid, binary cross-entropy) instead of exactly one.
        pooling: how a convolution's feature map is pooled to numbers: "avg", "max", "avgmax" or "freq"; None: the
            recipe's, of layers "avg"; what is given goes before a recipe's.
        aggregate: how the patches of a clip become one result: "scores" classifies every patch and
            averages the scores, "embeddings" averages the embeddings and classifies once. Heads on sequences
            have their own way.
        trainable: 0 trains the head only, n also the last n blocks of the backbone, "layer12" from that block on,
            "all" everything.
        batch_norm: "frozen" or "train", for the backbone's blocks that train; see ``freeze``. None: "train" without
            weights, else "frozen".
        weights: preset, TF Hub handle, SavedModel folder or archive, ``.weights.h5`` file, or None.
        input: "waveform" ``(batch, samples)``, or "patches" ``(batch, 96, 64)``.
        samples: a fixed waveform length (static shapes, for TPU and XLA), or None for any.
        learning_rate: Adam's.
        seed: of the head's initial weights and dropout; None draws new ones each time.
        name: the model's name; "<backbone>_classifier" if not given.
        background: one of ``class_names`` that is no sound of interest: scored like the others, never an event.
        backbone_options: further arguments of the backbone's builder, such as VGGish's ``pad_tail``.
        probe_clips: labelled clips for ``embedding="auto"``: those to train on, never those to test on.

    Returns:
        A compiled ``keras.Model`` from ``(batch, samples)`` to scores ``(batch, classes)`` in float32.

    Raises:
        ValueError: an argument outside what is allowed.
        WeightsError: weights that cannot be found, read or matched.
    """
    class_names = check_class_names(class_names)
    check_background(background, class_names)
    if head not in get_args(Head):
        raise ValueError(f"head={head!r}: allowed are {', '.join(get_args(Head))}")
    if not isinstance(dropout, numbers.Real) or not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout!r}: allowed is 0 up to, not including, 1")
    if not isinstance(hidden, Sequence) or any(not isinstance(units, int) or units < 1 for units in hidden):
        raise ValueError(f"hidden={hidden!r}: a sequence of positive whole numbers")
    if aggregate not in get_args(Aggregate):
        raise ValueError(f"aggregate={aggregate!r}: allowed are {', '.join(get_args(Aggregate))}")
    if head in get_args(SequenceHead) and (input == "patches" or aggregate == "embeddings"):
        given = "input='patches'" if input == "patches" else "aggregate='embeddings'"
        raise ValueError(f"head={head!r} takes the sequence of a clip's patches; it cannot go with {given}")
    if pooling == "time":
        raise ValueError(
            "pooling='time' is for embedding_model; a classifier's head takes 'avg', 'max', 'avgmax' or 'freq'"
        )
    spec = get_backbone(backbone)
    if spec.black_box and trainable != 0:
        raise ValueError(f"trainable={trainable!r}: {backbone} is a black box and stays frozen; allowed is 0")
    if embedding == "auto":
        if probe_clips is None:
            raise ValueError("embedding='auto': needs probe_clips=, the labelled clips to choose the layer on")
        embedding = probe_layers(backbone, probe_clips, pooling=pooling, weights=weights).recommended
    recipe = resolve_embedding(spec, embedding, pooling)
    base = cut_backbone(spec, recipe.layers, weights=weights, input=input, samples=samples, **(backbone_options or {}))
    x = patch_embedding(base, spec, recipe)
    options: dict[str, Any] = {"hidden": tuple(hidden), "dropout": dropout, "multi_label": multi_label, "seed": seed}
    if head in get_args(SequenceHead):
        x = sequence_head(head, to_clips(base, x, None), valid_patches(base), class_names, **options)
    elif head == "average" or aggregate == "embeddings":
        x = dense_head(to_clips(base, x, "avg"), class_names, **options)
    else:
        x = to_clips(base, dense_head(x, class_names, **options), "avg")
    model = keras.Model(base.input, x, name=name or f"{plain_name(spec)}_classifier")
    set_blocks(model, trainable, batch_norm=batch_norm or ("train" if weights is None else "frozen"))
    compile_classifier(model, multi_label=multi_label, learning_rate=learning_rate)
    set_background(model, background)
    return model


def classifier_from_sklearn(estimator: Any, backbone: str = "yamnet", **options: Any) -> keras.Model:
    """A classifier whose head is a fitted linear estimator of scikit-learn.

    It decides as the estimator does on the clips' mean embeddings (``AudioEmbedding`` or ``embed`` with the same
    backbone, layers and pooling). Scores are a logistic regression's probabilities (of a multinomial one,
    scikit-learn's default); of other estimators the softmax of their decision function.

    Args:
        estimator: fitted, with ``coef_``, ``intercept_`` and ``classes_`` (LogisticRegression, LinearSVC,
            SGDClassifier, RidgeClassifier, LinearDiscriminantAnalysis ...), alone or in a ``Pipeline`` after
            ``StandardScaler`` steps; or a ``OneVsRestClassifier`` of such, for several labels per clip. The classes'
            names are ``classes_`` as text.
        backbone: a name from ``list_backbones()``.
        **options: further arguments of ``build_classifier`` on the backbone: ``embedding``, ``pooling``, ``weights``,
            ``samples``, ``class_names`` (where ``classes_`` are numbers), ``name``, ``backbone_options``.

    Returns:
        A compiled ``keras.Model``, as from ``build_classifier``.

    Raises:
        ValueError: an estimator that is not linear or not fitted, or that was fitted on vectors of another width.
    """
    fixed = {"head", "hidden", "dropout", "multi_label", "aggregate"} & set(options)
    if fixed:
        raise ValueError(f"options {sorted(fixed)}: the estimator is the head; these cannot be given")
    kernel, bias, classes, multi_label = _affine(estimator)
    names = options.pop("class_names", None) or [str(name) for name in classes]
    if len(names) != kernel.shape[1]:
        raise ValueError(f"class_names={names!r}: the estimator has {kernel.shape[1]}")
    model = build_classifier(
        backbone, class_names=names, head="average", hidden=(), dropout=0.0, multi_label=multi_label, **options
    )
    head = parts(model)
    norm, logits = head.norm, head.logits
    width = logits.kernel.shape[0]
    if kernel.shape[0] != width:
        raise ValueError(f"estimator was fitted on vectors of {kernel.shape[0]} numbers; the embedding has {width}")
    norm.moving_mean.assign(np.zeros(width))
    norm.moving_variance.assign(np.full(width, 1 - norm.epsilon))  # it passes the embedding on as it is
    norm.trainable = False
    logits.kernel.assign(kernel)
    logits.bias.assign(bias)
    return model


def _affine(estimator: Any) -> tuple[np.ndarray, np.ndarray, Any, bool]:
    """Kernel ``(dim, classes)``, bias ``(classes,)``, classes, and whether several labels apply."""
    shift: Any = 0.0
    factor: Any = 1.0
    multi_label = False
    if hasattr(estimator, "steps"):  # a Pipeline
        for name, step in estimator.steps[:-1]:
            if type(step).__name__ != "StandardScaler":
                raise ValueError(
                    f"estimator: step {name!r} is {step!r}; before the classifier only StandardScaler is linear"
                )
            mean = step.mean_ if step.with_mean else 0.0
            scale = step.scale_ if step.with_std else 1.0
            shift, factor = (shift - mean) / scale, factor / scale
        estimator = estimator.steps[-1][1]
    if type(estimator).__name__ == "OneVsRestClassifier":
        parts = estimator.estimators_ if hasattr(estimator, "estimators_") else []
        multi_label = bool(getattr(estimator, "multilabel_", False))
        coefficients = [part.coef_.ravel() for part in parts if _is_linear(part)]
        if not parts or len(coefficients) != len(parts):
            raise ValueError(f"estimator={estimator!r}: fitted one-vs-rest estimators with coef_ are needed")
        weights, offsets = np.stack(coefficients), np.array([float(np.ravel(part.intercept_)[0]) for part in parts])
    elif _is_linear(estimator):
        weights, offsets = np.atleast_2d(estimator.coef_), np.ravel(estimator.intercept_)
    else:
        raise ValueError(f"estimator={estimator!r}: a fitted linear classifier (coef_, intercept_, classes_) is needed")
    classes = estimator.classes_
    if len(weights) == 1 and len(classes) == 2:  # one function, positive for the second class
        weights, offsets = np.stack([np.zeros_like(weights[0]), weights[0]]), np.array([0.0, offsets[0]])
    if len(weights) != len(classes):
        raise ValueError(
            f"estimator={estimator!r}: {len(weights)} functions for {len(classes)} classes (one-vs-one?); one function "
            "per class is needed, such as LinearSVC has"
        )
    kernel = np.asarray(weights, np.float64).T
    offsets = offsets + np.broadcast_to(shift, len(kernel)) @ kernel
    return kernel * np.broadcast_to(factor, len(kernel))[:, None], offsets, classes, multi_label


def _is_linear(estimator: Any) -> bool:
    return all(hasattr(estimator, name) for name in ("coef_", "intercept_", "classes_"))
