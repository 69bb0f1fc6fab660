"""The parts of classifiers of every head, of backbones alone, and of models that were built elsewhere."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from tfaudiotl.backbones.embedding import embedding_model
from tfaudiotl.backbones.frontend import LogMelSpec
from tfaudiotl.backbones.registry import get_backbone
from tfaudiotl.backbones.yamnet import YAMNetMini
from tfaudiotl.classifiers.anatomy import blocks_of, classifier_parts, parts
from tfaudiotl.classifiers.build import build_classifier

NAMES = ("dog", "rain")


def classifier(**options: Any) -> keras.Model:
    settings = {"embedding": "layer2", "hidden": (4,), "weights": None, "seed": 1, **options}
    return build_classifier("yamnet_mini", class_names=NAMES, **settings)


@pytest.mark.parametrize(
    ("options", "sequence_head", "scores_clips"),
    [
        ({}, False, False),
        ({"aggregate": "embeddings"}, False, True),
        ({"head": "average", "multi_label": True}, False, True),
        ({"head": "gru"}, True, True),
        ({"head": "statistics"}, True, True),
        ({"head": "attention", "multi_label": True}, True, True),
        ({"input": "patches"}, False, False),
    ],
    ids=["dense", "mean", "average", "gru", "statistics", "attention", "patches"],
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
    assert found.embedding.shape[1] == 64
    assert found.norm.moving_mean.shape[0] == (3 * 64 if options.get("head") == "statistics" else 64)
    assert found.logits.kernel.shape == (4, 2)
    assert found.rows.shape[1:] == (96, 64, 1)


@pytest.mark.parametrize("head", ["dense", "average", "statistics", "lstm"])
def test_network_and_head_are_the_classifier(head: str) -> None:
    """One patch through the network and the head scores as the whole model; both share its weights."""
    model = classifier(head=head)
    found = parts(model)
    sound = np.random.default_rng(0).normal(0, 0.1, (3, 15_600)).astype(np.float32)
    vectors = np.asarray(found.network(sound))
    scores = found.head([vectors[:, None], np.ones((3, 1), np.float32)] if found.sequence_head else vectors)
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


MOBILENETS = [f"block_{n}" for n in range(1, 17)]


@pytest.mark.parametrize(
    ("backbone", "names", "options"),
    [
        ("yamnet_mini", [f"layer{n}" for n in range(1, 7)], {}),
        ("rawnet2", [f"layer{n}" for n in range(1, 10)], {"window": 4_000}),
        ("convnet", ["conv1", "conv2", "conv3", "conv4", "conv5", "fc1", "fc2"], {}),
        pytest.param("vggish", ["conv1", "conv2", "conv3", "conv4", "fc1", "fc2"], {}, marks=pytest.mark.slow),
        ("mobilenet", ["conv1", *(f"conv_{n}" for n in range(1, 14))], {"size": 32}),
        ("mobilenetv2", ["Conv1", "expanded_conv", *MOBILENETS, "Conv_1"], {"size": 32}),
        ("inceptionv3", [f"mixed{n}" for n in range(11)], {"size": 75}),
        ("efficientnetv2b0", ["stem", *(f"block{n}" for n in range(1, 7)), "top"], {"size": 32}),
    ],
)
def test_blocks_of_every_backbone(backbone: str, names: list[str], options: dict[str, Any]) -> None:
    """They are the network in order, each layer with weights in one block, and every block has some."""
    spec = get_backbone(backbone)
    network = spec.build(include_top=False, weights=None, **options)
    blocks = blocks_of(network)
    assert list(blocks) == names
    weighted = [layer.name for layer in network.layers if layer.weights]
    assert sorted(weighted) == sorted(layer.name for members in blocks.values() for layer in members if layer.weights)
    order = [layer.name for layer in network.layers]
    ends = [order.index(block.end) for block in spec.blocks]
    assert ends == sorted(ends)


def test_an_embedding_inside_a_block_ends_it() -> None:
    model = build_classifier("vggish", class_names=NAMES, embedding="conv3_1", weights=None)
    blocks = parts(model).blocks
    assert {name: [layer.name for layer in members if layer.weights] for name, members in blocks.items()} == {
        "conv1": ["conv1"],
        "conv2": ["conv2"],
        "conv3": ["conv3_1"],
    }


def test_errors() -> None:
    with pytest.raises(ValueError, match="'yamnet_mini' is no classifier of build_classifier"):
        classifier_parts(YAMNetMini(weights=None))
    with pytest.raises(ValueError, match="takes no waveforms: build the classifier with input='waveform'"):
        classifier_parts(classifier(input="patches"), waveforms=True)
