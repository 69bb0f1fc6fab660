"""``tfaudiotl weights``, and training on weights that only the last place of the chain has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.helpers.commands import FAST, call
from tests.helpers.servers import Server, isolate, sends, serving
from tests.helpers.sounds import write_folder
from tests.helpers.yamnet import keras2_file
from tfaudiotl.backbones import yamnet
from tfaudiotl.backbones.registry import get_backbone
from tfaudiotl.backbones.yamnet import YAMNet

AUTHORS = "/audioset/yamnet.h5"


@pytest.fixture(scope="module")
def original(stand_in: Path) -> bytes:
    return keras2_file(stand_in)


@pytest.fixture
def authors(original: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """TF Hub refuses, Kaggle has nothing, the authors' storage has yamnet.h5."""
    known = replace(yamnet.PUBLISHED, sha256=hashlib.sha256(original).hexdigest())
    monkeypatch.setattr(yamnet, "PUBLISHED", known)
    with serving() as server:
        isolate(monkeypatch, tmp_path / "caches", servers=server.url)
        server.answers["/tfhub/google/yamnet/1?tf-hub-format=compressed"] = sends(b"<Error/>", status=403)
        server.answers[AUTHORS] = sends(original)
        yield server


def test_training_runs_when_only_the_last_place_has_the_weights(authors: Server, tmp_path: Path) -> None:
    sounds = write_folder(tmp_path / "sounds", per_class=6)
    result = call("train", sounds, "--backbone", "yamnet", "-o", tmp_path / "out", *FAST)
    assert "Fetching from 127.0.0.1" in result.stderr
    assert [path.split("?")[0] for path in authors.requests[:3]] == [
        "/tfhub/google/yamnet/1",
        "/kaggle/api/v1/models/google/yamnet/tensorFlow2/yamnet/1/download",
        AUTHORS,
    ]
    assert (tmp_path / "out" / "model.keras").is_file()
    assert authors.requests.count(AUTHORS) == 1  # from the cache afterwards


def test_fetched_checked_shown_and_written(
    authors: Server, stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = call("weights", "yamnet", "-o", tmp_path / "y.weights.h5")
    shown = dict(line.split(maxsplit=1) for line in result.stdout.splitlines()[:6])
    assert shown["from"] == f"AudioSet's authors, {authors.url}{AUTHORS}"
    assert shown["path"] == str(tmp_path / "caches" / "own" / "yamnet.h5")
    assert shown["parameters"] == "3,751,369"
    assert shown["licence"].startswith("Apache-2.0")
    # the same from another place
    isolate(monkeypatch, tmp_path / "other")
    cached = hashlib.sha1(b"https://tfhub.dev/google/yamnet/1").hexdigest()
    (tmp_path / "other" / "tfhub").mkdir(parents=True)
    (tmp_path / "other" / "tfhub" / cached).symlink_to(stand_in)
    again = dict(line.split(maxsplit=1) for line in call("weights", "yamnet").stdout.splitlines()[:6])
    assert again["from"] == "TF Hub's cache"
    assert again["SHA-256"] == shown["SHA-256"]
    # without any place, the written file
    isolate(monkeypatch, tmp_path / "none")
    loaded = YAMNet(weights=str(tmp_path / "y.weights.h5"))
    for ours, theirs in zip(loaded.get_weights(), YAMNet(weights=str(stand_in)).get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert loaded.get_layer("scores").class_names[494] == "Silence"
    assert "is there already" in call("weights", "yamnet", "-o", tmp_path / "y.weights.h5", code=1).output


def test_the_network_in_the_package_is_shown_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch, tmp_path)
    result = call("weights", "yamnet_mini", "-o", tmp_path / "mini.weights.h5")
    assert "the package" in result.stdout
    assert (tmp_path / "mini.weights.h5").is_file()


def test_a_network_of_keras_applications_is_fetched_by_keras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def build(*, weights: str, **options: Any) -> keras.Model:
        asked.append(weights)
        return mobilenet(weights=None, alpha=0.35, **options)

    mobilenet = keras.applications.MobileNetV2
    monkeypatch.setattr(keras.applications, "MobileNetV2", build)
    assert "keras.applications" in call("weights", "mobilenetv2").stdout
    assert asked == ["imagenet"]


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["yamnett"], ["yamnett: no published weights", "there are: ", "yamnet_mini"]),
        (["rawnet2"], ["rawnet2", "no published weights", "vggish"]),
        (["hub:somewhere"], ["no published weights"]),
        (["yamnet", "-o", "yamnet.h5"], ["--output yamnet.h5", ".weights.h5"]),
        (["yamnet"], ["HTTP 403", "HTTP 404", "not there", "yamnet.h5", "By hand"]),
    ],
)
def test_errors(arguments: list[str], messages: list[str], authors: Server) -> None:
    del authors.answers[AUTHORS]
    output = call("weights", *arguments, code=1).output
    for message in messages:
        assert message in output


@pytest.mark.parametrize("name", ["nosuch", "rawnet2", "hub:x"])
def test_what_is_listed_is_taken(name: str) -> None:
    listed = call("weights", name, code=1).output.split("there are: ")[1].strip().split(", ")
    assert "yamnet" in listed
    assert all(get_backbone(each).presets for each in listed)
