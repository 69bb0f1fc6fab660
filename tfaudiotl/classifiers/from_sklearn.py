"""A linear scikit-learn classifier on embeddings as the head of a Keras model, and so exportable like any other."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfaudiotl.classifiers.anatomy import parts
from tfaudiotl.classifiers.build import build_classifier


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
