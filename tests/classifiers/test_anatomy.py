"""The parts of classifiers of every head, of backbones alone, and of models that were built elsewhere."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from tfaudiotl.backbones.frontend import LogMelSpec
from tfaudiotl.backbones.yamnet_mini import YAMNetMini
from tfaudiotl.classifiers.anatomy import classifier_parts, parts
from tfaudiotl.models.builder import build_classifier, embedding_model

NAMES = ("dog", "rain")


def classifier(**options: Any) -> keras.Model:
    settings = {"embedding": "layer2", "hidden": (4,), "weights": None, "seed": 1, **options}
    return build_classifier("yamnet_mini", classes=NAMES, **settings)


@pytest.mark.parametrize(
    ("options", "sequence_head", "scores_clips"),
    [
        ({}, False, False),
        ({"aggregate": "embeddings"}, False, True),
        ({"head": "average", "multi_label": True}, False, True),
        ({"head": "gru"}, True, True),
        ({"head": "attention", "multi_label": True}, True, True),
        ({"input": "patches"}, False, False),
    ],
    ids=["dense", "mean", "average", "gru", "attention", "patches"],
)
def test_classifiers(options: dict[str, Any], sequence_head: bool, scores_clips: bool) -> None:
    model = classifier(**options)
    found = classifier_parts(model)
    patches = options.get("input") == "patches"
    assert found.is_classifier
    assert found.class_names == NAMES
    assert found.multi_label == options.get("multi_label", False)
    assert (found.sequence_head, found.scores_clips, found.takes_patches) == (sequence_head, scores_clips, patches)
    assert found.frontend == LogMelSpec()
    assert (found.grid is None) == (found.waveform is None) == (found.patches is None) == patches
    assert found.embedding.shape[1] == found.norm.moving_mean.shape[0] == 64
    assert found.logits.kernel.shape == (4, 2)
    assert found.rows.shape[1:] == (96, 64, 1)


@pytest.mark.parametrize("head", ["dense", "average", "lstm"])
def test_network_and_head_are_the_classifier(head: str) -> None:
    """One patch through the network and the head scores as the whole model; both share its weights."""
    model = classifier(head=head)
    found = parts(model)
    sound = np.random.default_rng(0).normal(0, 0.1, (3, 15_600)).astype(np.float32)
    vectors = np.asarray(found.network(sound))
    scores = found.head([vectors[:, None], np.ones((3, 1), np.float32)] if head == "lstm" else vectors)
    np.testing.assert_allclose(scores, model(sound), atol=1e-6)
    np.testing.assert_allclose(found.clip_embedding(sound), vectors, atol=1e-6)
    assert found.head.trainable_variables[-1] is model.trainable_variables[-1]


def test_other_models_lack_parts() -> None:
    """A backbone has no head, an embedding model neither, and a model that was built elsewhere has no part at all."""
    whole = parts(YAMNetMini(weights=None))
    assert whole.logits.units == 521
    assert whole.multi_label
    assert whole.waveform is not None
    assert whole.norm is None
    assert not whole.is_classifier
    embedding = parts(embedding_model("yamnet_mini", embedding="layer2", weights=None))
    assert embedding.embedding is not None
    assert embedding.scores is None
    assert not embedding.is_classifier
    strange = parts(keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)]))
    assert (strange.grid, strange.frontend, strange.rows, strange.scores) == (None, None, None, None)


def test_errors() -> None:
    with pytest.raises(ValueError, match="'yamnet_mini' is no classifier of build_classifier"):
        classifier_parts(YAMNetMini(weights=None))
    with pytest.raises(ValueError, match="takes no waveforms: build the classifier with input='waveform'"):
        classifier_parts(classifier(input="patches"), waveforms=True)
