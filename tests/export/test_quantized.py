"""Quantised files of a small network: what is in them, how they compare, and what is refused."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.helpers.sounds import KINDS, sound
from tfaudiotl.backbones.embedding import embedding_model
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.data.clips import Clips
from tfaudiotl.errors import ExportError, WeightsError
from tfaudiotl.export.check import Reference, same_sounds, verify_export
from tfaudiotl.export.prepare import Frontend, float_graph
from tfaudiotl.export.savedmodel import export_saved_model
from tfaudiotl.export.tflite import Quantize, export_tflite
from tfaudiotl.runtime.evaluate import evaluate
from tfaudiotl.runtime.load import open_artifact
from tfaudiotl.runtime.predictor import Predictor
from tfaudiotl.tflite.audit import audit_tflite
from tfaudiotl.tflite.graph import Graph
from tfaudiotl.tflite.metadata import Metadata, read_metadata, write_metadata
from tfaudiotl.tflite.quantize import Quantized, quantize_dynamic
from tfaudiotl.training.train import train_classifier


def mediapipe_major() -> int:
    try:
        return int(metadata.version("mediapipe").split(".")[0])
    except metadata.PackageNotFoundError:
        return 0  # the test itself skips


def make_clips(seed: int, per_class: int = 12) -> Clips:
    rng = np.random.default_rng(seed)
    waves = [sound(kind, rng, seconds=0.975) for kind in KINDS for _ in range(per_class)]
    return Clips.from_arrays(waves, [kind for kind in KINDS for _ in range(per_class)], sample_rate=16_000)


@pytest.fixture(scope="module")
def clips() -> Clips:
    return make_clips(5)


@pytest.fixture(scope="module")
def held_out() -> Clips:
    return make_clips(6, per_class=5)


@pytest.fixture(scope="module")
def model(stand_in: Path, clips: Clips) -> keras.Model:
    """Six blocks of the network with random weights, and a head trained on three kinds of sound."""
    return train_classifier(clips, weights=str(stand_in), embedding="layer6", hidden=()).model


@pytest.fixture(scope="module")
def float_bytes(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> int:
    return export_tflite(model, tmp_path_factory.mktemp("float") / "float.tflite").stat().st_size


@pytest.mark.parametrize(
    ("quantize", "frontend", "at_most", "share"),
    [
        (None, "matmul", 2.5, 0.0),
        ("float16", "fft", 0.75, 0.0),
        ("dynamic", "fft", 0.5, 0.9),
        ("int8", "fft", 0.5, 0.9),
    ],
)
def test_waveform_files_are_small_agree_and_are_what_they_are_called(
    model: keras.Model,
    clips: Clips,
    held_out: Clips,
    float_bytes: int,
    tmp_path: Path,
    quantize: Quantize | None,
    frontend: Frontend,
    at_most: float,
    share: float,
) -> None:
    path = tmp_path / "model.tflite"
    export_tflite(
        model, path, quantize=quantize, frontend=frontend, calibrate=clips, verify=held_out, min_agreement=0.9
    )
    assert path.stat().st_size < at_most * float_bytes
    audit = audit_tflite(path)
    assert audit.int8_share >= share
    assert not [op for op in audit.operators if op.block == "front-end" and op.scheme in ("int8", "dynamic")]
    assert ("RFFT2D" in audit.kinds) == (frontend == "fft")
    assert any(op.scheme == "int8" for op in audit.layers) == (quantize == "int8")
    report = json.loads((tmp_path / "model.report.json").read_text())
    kinds = [form["kind"] for form in report["compared"]]
    assert kinds == ["keras", "saved_model", "tflite", "tflite"]
    assert report["compared"][-1]["agreement"] >= 0.9
    assert report["compared"][-1]["accuracy"] is not None
    assert [latency["threads"] for latency in report["latencies"]] == [1, 2]
    assert report["peak_memory"] is None or report["peak_memory"] > 100_000
    text = (tmp_path / "model.report.md").read_text()
    assert "front-end" in text
    assert ("## Sensitivity" in text) == (quantize == "int8")


def test_int8_throughout_for_microcontrollers(
    model: keras.Model, clips: Clips, held_out: Clips, tmp_path: Path
) -> None:
    path = tmp_path / "micro net.tflite"
    export_tflite(
        model,
        path,
        quantize="int8_io",
        input="patches",
        calibrate=clips,
        verify=held_out,
        min_agreement=0.9,
        c_array=True,
    )
    audit = audit_tflite(path)
    assert audit.inputs == ("INT8 1x96x64",)
    assert audit.outputs == ("INT8 1x3",)
    assert {op.scheme for op in audit.layers} <= {"int8", "int16"}
    assert set(audit.kinds) <= {
        "RESHAPE",
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "MEAN",
        "FULLY_CONNECTED",
        "SOFTMAX",
        "QUANTIZE",
    }
    assert path.stat().st_size < 200_000
    wanted = open_artifact(model).scores(held_out.load(0)[None, :15_600])
    np.testing.assert_allclose(open_artifact(path).scores(held_out.load(0)[None, :15_600]), wanted, atol=0.1)
    source = path.with_suffix(".cc").read_text()
    assert "alignas(16) const unsigned char micro_net[]" in source
    assert f"micro_net_len = {path.stat().st_size};" in source
    assert source.count("0x") == path.stat().st_size
    header = path.with_suffix(".h").read_text()
    assert "INT8 1x96x64" in header
    assert "Not in TFLite Micro: none" in header


def test_a_model_of_patches_exports_and_opens_as_one_of_sound(stand_in: Path, tmp_path: Path) -> None:
    names = ("a", "b")
    keras.utils.set_random_seed(1)
    model = build_classifier(class_names=names, weights=str(stand_in), embedding="layer3", input="patches")
    path = export_tflite(model, tmp_path / "p.tflite")
    wave = sound("low", np.random.default_rng(0), seconds=2)
    a, b = (Predictor(form).scores(wave, sample_rate=16_000) for form in (model, path))
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_embedding_models_keep_their_direction(stand_in: Path, held_out: Clips, tmp_path: Path) -> None:
    model = embedding_model(weights=str(stand_in), embedding="layer6", patch_pooling="avg")
    path = export_tflite(model, tmp_path / "e.tflite", quantize="dynamic", verify=held_out)
    report = json.loads((tmp_path / "e.report.json").read_text())
    assert report["compared"][-1]["cosine"] > 0.98
    assert report["compared"][-1]["agreement"] is None
    with pytest.raises(WeightsError, match="gives embeddings"):
        Predictor(path)


def test_too_little_agreement_names_the_worst_clips_and_leaves_the_old_file_whole(
    model: keras.Model, clips: Clips, held_out: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = export_tflite(model, tmp_path / "m.tflite")
    before = path.read_bytes()
    from tfaudiotl.export import tflite

    def ruin(plain: Graph) -> Quantized:
        graph = Graph(plain.content)
        last = [op for op in graph.operators if op.kind == "FULLY_CONNECTED"][-1]
        graph.set_constant(last.inputs[1], -graph.constant(last.inputs[1]))
        return quantize_dynamic(graph)

    monkeypatch.setattr(tflite, "quantize_dynamic", ruin)
    with pytest.raises(ExportError, match=r"agreement .* less than min_agreement=0.97; clips that differ most: array"):
        export_tflite(model, path, quantize="dynamic", verify=held_out, overwrite=True)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*.report.*"))
    assert export_tflite(model, path, quantize="dynamic", verify=held_out, min_agreement=0, overwrite=True)


def test_a_float_file_is_not_called_int8(
    model: keras.Model, clips: Clips, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tfaudiotl.export import tflite

    monkeypatch.setattr(tflite, "quantize_static", lambda graph, windows: Quantized(graph, {}))
    with pytest.raises(ExportError, match="no int8 file"):
        export_tflite(model, tmp_path / "m.tflite", quantize="int8", calibrate=clips)
    assert not list(tmp_path.iterdir())


def test_a_report_says_what_trains_metrics_and_evaluate_say(
    model: keras.Model, clips: Clips, held_out: Clips, tmp_path: Path
) -> None:
    """One definition of a clip's scores: of the file, and of every other form in its report."""
    path = export_tflite(model, tmp_path / "m.tflite", quantize="dynamic", verify=held_out, min_agreement=0)
    report = json.loads((tmp_path / "m.report.json").read_text())["compared"]
    reference = Reference(open_artifact(model), held_out)
    saved = open_artifact(export_saved_model(model, tmp_path / "saved"))
    found = [verify_export(reference, form, min_agreement=0) for form in (saved, open_artifact(path, num_threads=1))]
    for wanted, check in zip((report[1], report[3]), found, strict=True):
        assert (check.windows, check.agreement) == (wanted["windows"], wanted["agreement"])
        assert (check.accuracy, check.macro_f1) == (wanted["accuracy"], wanted["macro_f1"])
        assert check.keras_accuracy == wanted["keras_accuracy"]
        assert check.max_difference == pytest.approx(wanted["max_difference"], abs=1e-5)
    measured = evaluate(path, held_out)
    assert (report[3]["accuracy"], report[3]["macro_f1"]) == (measured.accuracy, measured.macro_f1)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"quantize": "int4"}, "quantize='int4'"),
        ({"quantize": "int8"}, "give calibrate="),
        ({"quantize": "int8_io"}, "input='patches'"),
        ({"input": "mel"}, "input='mel'"),
        ({"frontend": "dct"}, "frontend='dct'"),
        ({"min_agreement": 2}, "min_agreement=2"),
        ({"quantize": "int8", "calibrate": []}, "calibrate is empty"),
        ({"quantize": "int8", "calibrate": [np.zeros(32_000, np.float32)] * 20}, "not silent"),
        ({"verify": []}, "verify is empty"),
    ],
)
def test_arguments_outside_what_is_allowed_are_named(
    model: keras.Model, tmp_path: Path, arguments: dict, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        export_tflite(model, tmp_path / "m.tflite", **arguments)
    assert not list(tmp_path.iterdir())


def test_calibration_on_other_classes_is_refused(model: keras.Model, clips: Clips, tmp_path: Path) -> None:
    waves = [clips.load(row) for row in range(4)]
    other = Clips.from_arrays(waves, ["cat", "dog", "cat", "dog"], sample_rate=16_000)
    with pytest.raises(ValueError, match=r"calibrate has clips of \['cat', 'dog'\]"):
        export_tflite(model, tmp_path / "m.tflite", quantize="int8", calibrate=other)


def test_a_place_that_cannot_be_written_is_named(model: keras.Model, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot be written"):
        export_tflite(model, tmp_path / "file" / "m.tflite")


def test_metadata_survives_and_labels_must_fit(model: keras.Model, tmp_path: Path) -> None:
    metadata = Metadata(
        "Sounds", "Three kinds.", "2.1", "me", "MIT", locales={}, score_threshold=0.25, settings={"note": "x"}
    )
    path = export_tflite(model, tmp_path / "m.tflite", metadata=metadata)
    found = read_metadata(path.read_bytes())
    assert found is not None
    assert (found.name, found.version, found.author, found.license) == ("Sounds", "2.1", "me", "MIT")
    assert found.labels == KINDS
    assert (found.sample_rate, found.channels, found.score_threshold) == (16_000, 1, 0.25)
    assert found.settings["note"] == "x"
    assert Predictor(path).threshold == 0.25  # the file's own, and the labels from inside it
    again = write_metadata(Graph(path.read_bytes()), Metadata("New", labels=KINDS, locales={"de": ("a", "ö", "c")}))
    renewed = read_metadata(again)
    assert renewed is not None
    assert (renewed.name, dict(renewed.locales), renewed.score_threshold) == ("New", {"de": ("a", "ö", "c")}, None)
    with pytest.raises(ExportError, match="2 labels for 3 outputs"):
        export_tflite(model, tmp_path / "n.tflite", metadata=Metadata(labels=("a", "b")))
    with pytest.raises(ValueError, match=r"locales\['de'\]"):
        Metadata(labels=("a", "b"), locales={"de": ("x",)})


def test_a_file_without_metadata_or_labels_says_what_is_missing(model: keras.Model, tmp_path: Path) -> None:
    path = tmp_path / "bare.tflite"
    path.write_bytes(float_graph(model).content)
    with pytest.raises(WeightsError, match="no class names"):
        Predictor(path)
    assert Predictor(path, class_names=KINDS).class_names == KINDS


# In "dynamic", each version of LiteRT rounds what flows between the layers in kernels of its own.
@pytest.mark.parametrize(("quantize", "tolerance"), [("float16", 1e-4), ("dynamic", 0.05)])
def test_mediapipe_hears_what_we_hear(
    quantize: Quantize, tolerance: float, model: keras.Model, held_out: Clips, tmp_path: Path
) -> None:
    pytest.importorskip("mediapipe")
    from mediapipe.tasks.python import BaseOptions, audio
    from mediapipe.tasks.python.components.containers import AudioData

    path = export_tflite(model, tmp_path / "m.tflite", quantize=quantize)
    options = audio.AudioClassifierOptions(base_options=BaseOptions(model_asset_path=str(path)))
    ours = open_artifact(path)
    with audio.AudioClassifier.create_from_options(options) as theirs:
        for row in range(0, len(held_out), 3):
            window = held_out.load(row)[:15_600]
            (found, *_) = theirs.classify(AudioData.create_from_array(window, 16_000))
            scores = {c.category_name: c.score for c in found.classifications[0].categories}
            wanted = dict(zip(ours.class_names, ours.scores(window[None])[0], strict=True))
            assert scores == pytest.approx(wanted, abs=tolerance)


@pytest.mark.skipif(
    mediapipe_major() >= 1,
    reason="AudioEmbedder of mediapipe 1.x reads no .tflite file, Google's own YAMNet neither; 0.10 does",
)
def test_mediapipe_embeds_with_embedding_models(stand_in: Path, held_out: Clips, tmp_path: Path) -> None:
    pytest.importorskip("mediapipe")
    from mediapipe.tasks.python import BaseOptions
    from mediapipe.tasks.python.audio import audio_embedder
    from mediapipe.tasks.python.components.containers import AudioData

    model = embedding_model(weights=str(stand_in), embedding="layer4", patch_pooling="avg")
    path = export_tflite(model, tmp_path / "e.tflite")
    options = audio_embedder.AudioEmbedderOptions(base_options=BaseOptions(model_asset_path=str(path)))
    window = held_out.load(0)[:15_600]
    with audio_embedder.AudioEmbedder.create_from_options(options) as embedder:
        (found, *_) = embedder.embed(AudioData.create_from_array(window, 16_000))
    wanted = open_artifact(path).scores(window[None])[0]
    np.testing.assert_allclose(found.embeddings[0].embedding, wanted, atol=1e-3)


def test_calibrating_and_verifying_on_the_same_clips_is_said(
    model: keras.Model, held_out: Clips, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match="verify: 15 of 15 clips are of recordings in calibrate"):
        path = export_tflite(
            model, tmp_path / "m.tflite", quantize="int8", calibrate=held_out, verify=held_out, min_agreement=0
        )
    assert json.loads(path.with_suffix(".report.json").read_text())["calibrated"] == 15
    assert "15 of the 15 clips are of recordings that the file was calibrated on" in (
        path.with_suffix(".report.md").read_text()
    )
    with pytest.warns(UserWarning, match="verify: 1 of 2 clips"):
        assert same_sounds([held_out.load(0)], [held_out.load(0), held_out.load(1)]) == 1


@pytest.mark.parametrize(
    ("name", "arguments"), [("m.report.json", {"verify": [np.ones(16_000)]}), ("m.cc", {"c_array": True})]
)
def test_what_lies_beside_is_not_replaced_unasked(
    model: keras.Model, tmp_path: Path, name: str, arguments: dict
) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match=f"{name}' exists already"):
        export_tflite(model, tmp_path / "m.tflite", **arguments)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_no_report_is_left_where_the_file_could_not_take_its_place(
    model: keras.Model, held_out: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tfaudiotl._files.replace", full)
    with pytest.raises(ExportError, match="No space left"):
        export_tflite(model, tmp_path / "m.tflite", verify=held_out[:2])
    assert not list(tmp_path.glob("*.report.*"))


@pytest.mark.parametrize(
    ("name", "arguments", "named"),
    [
        ("m.tflite", {"samples": 100}, r"samples=100: .* at least 15600 \(0.975 s"),
        ("m.bin", {}, r"m.bin': the name of a .tflite file ends in .tflite"),
        ("m", {}, r"ends in .tflite"),
    ],
)
def test_names_and_windows_that_nobody_meant_are_refused(
    model: keras.Model, tmp_path: Path, name: str, arguments: dict, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        export_tflite(model, tmp_path / name, **arguments)
    assert not list(tmp_path.iterdir())
