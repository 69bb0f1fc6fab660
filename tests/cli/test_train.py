"""``tfaudiotl train`` and ``distill``."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.helpers.commands import FAST, call
from tests.helpers.sounds import make_folder, write_folder
from tfaudiotl.cli import app
from tfaudiotl.cli.options import pretrained
from tfaudiotl.data.clips import Clips
from tfaudiotl.errors import DivergedError


def test_train_writes_everything(trained: tuple[Path, Path]) -> None:
    out = trained[1]
    assert sorted(path.name for path in out.iterdir()) == [
        "MODEL_CARD.md",
        "labels.txt",
        "metrics.json",
        "model.keras",
        "model.tflite",
        "model_float16.tflite",
        "report",
        "saved_model",
    ]
    assert (out / "labels.txt").read_text() == "high\nlow\nnoise\n"
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["accuracy_mean"] > 0.9
    assert [fold["name"] for fold in metrics["folds"]] == ["1", "2", "3", "4"]
    assert {check["file"] for check in metrics["exports"]} == {
        "model.keras",
        "saved_model",
        "model.tflite",
        "model_float16.tflite",
    }
    assert all(check["agreement"] >= 0.97 for check in metrics["exports"])
    assert metrics["skipped"] == []
    report = (out / "report" / "report.md").read_text()
    for part in ("Folds", "Exported files", "confusion_matrix.png", "training_curves.png", "per_class.png"):
        assert part in report
    card = (out / "MODEL_CARD.md").read_text()
    for part in ("| high ", "Apache-2.0", "4 folds", "model_float16.tflite", "Android", "iOS", "Browser", "16,000 Hz"):
        assert part in card
    assert "data:image/png" in (out / "report" / "report.html").read_text()
    assert (out / "report" / "confusion_matrix.png").read_bytes().startswith(b"\x89PNG")


def test_the_board_example_hears_it_without_this_package(trained: tuple[Path, Path]) -> None:
    sounds, out = trained
    example = Path(__file__).parents[2] / "examples" / "on_a_board.py"
    for kind in ("high", "low", "noise"):
        command = [sys.executable, str(example), str(out / "model.tflite"), str(next((sounds / kind).glob("*.wav")))]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        assert lines
        assert {line.split()[2] for line in lines} == {kind}
    assert "tfaudiotl" not in [line.split()[1] for line in example.read_text().splitlines() if "import " in line]


def test_an_output_folder_that_is_not_empty_is_kept(trained: tuple[Path, Path], stand_in: Path) -> None:
    sounds, out = trained
    before = (out / "metrics.json").read_text()
    result = call("train", sounds, "-o", out, "--weights", stand_in, *FAST, code=1)
    assert "is not empty" in result.output
    assert (out / "metrics.json").read_text() == before


def test_bad_folders_are_explained(tmp_path: Path, stand_in: Path) -> None:
    def error(folder: Path) -> str:
        result = call("train", folder, "-o", tmp_path / "out", "--weights", stand_in, code=1)
        assert "Error: " in result.output
        assert "Traceback" not in result.output
        return result.output

    assert "missing" in error(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    assert "empty" in error(tmp_path / "empty")
    write_folder(tmp_path / "one", kinds=("noise",))
    assert "noise" in error(tmp_path / "one")
    assert not (tmp_path / "out").exists()


def test_a_broken_file_is_named_and_can_be_skipped(tmp_path: Path, stand_in: Path) -> None:
    sounds = write_folder(tmp_path / "sounds", per_class=6)
    (sounds / "low" / "broken.wav").write_text("not a sound")
    result = call("train", sounds, "-o", tmp_path / "out", "--weights", stand_in, *FAST, code=1)
    assert "broken.wav" in result.output
    call("train", sounds, "-o", tmp_path / "out", "--weights", stand_in, *FAST, "--on-error", "skip")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert [Path(entry["path"]).name for entry in metrics["skipped"]] == ["broken.wav"]
    assert "broken.wav" in (tmp_path / "out" / "report" / "report.md").read_text()


def test_unreachable_hub_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    sounds = write_folder(tmp_path / "sounds", per_class=2)
    handle = "http://127.0.0.1:9/google/yamnet/1"
    result = call("train", sounds, "-o", tmp_path / "out", "--weights", handle, code=1)
    for word in (handle, "TFHUB_CACHE_DIR", "--weights"):
        assert word in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hidden", "many"], "whole numbers"),
        (["--epochs", "0"], "'--epochs'"),
        (["--embedding", "layer99"], "layer99"),
        (["--val", "1.5"], "--val 1.5"),
    ],
)
def test_wrong_options_are_named(arguments: list[str], message: str, tmp_path: Path, stand_in: Path) -> None:
    sounds = write_folder(tmp_path / "sounds", per_class=4)
    result = CliRunner().invoke(
        app, ["train", str(sounds), "-o", str(tmp_path / "out"), "--weights", str(stand_in), *arguments]
    )
    assert result.exit_code in (1, 2)
    assert message in result.output.replace("\n", " ")
    assert "Listening" not in result.output  # refused before the work


def hear_ctrl_c() -> None:
    """A shell without job control starts what is in its background deaf to Ctrl-C, and so the tests' children too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_training_resumes(how: signal.Signals, tmp_path: Path, stand_in: Path) -> None:
    sounds, out = write_folder(tmp_path / "sounds", per_class=12), tmp_path / "out"
    # So many epochs that the interruption falls among them.
    slow = [*FAST[:4], "--epochs", "3000", "--patience", "3000", "--learning-rate", "0.001"]
    command = [sys.executable, "-m", "tfaudiotl.cli", "train", sounds, "-o", out, "--weights", stand_in, *slow]
    process = subprocess.Popen(
        [str(part) for part in command], stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c
    )
    state = out / ".work" / "train.npz"
    deadline = time.monotonic() + 120
    while not state.is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    os.kill(process.pid, how)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (130 if how is signal.SIGINT else -signal.SIGKILL)
    if how is signal.SIGINT:
        assert "--resume goes on" in errors
    assert state.is_file()
    assert "--resume" in call("train", sounds, "-o", out, "--weights", stand_in, *slow, code=1).output
    other = ["--dropout", "0.4", *slow]
    assert "--dropout 0.2 then, 0.4 now" in call(
        "train", sounds, "-o", out, "--weights", stand_in, "--resume", *other, code=1
    ).output.replace("\n", " ")
    listened = state.stat().st_mtime_ns
    resumed = subprocess.Popen([*(str(part) for part in command), "--resume"], stderr=subprocess.PIPE, text=True)
    while state.stat().st_mtime_ns == listened and time.monotonic() < deadline:
        time.sleep(0.05)
    resumed.kill()
    resumed.communicate()
    assert state.stat().st_mtime_ns > listened  # it went on


def test_fine_tuning_is_one_option_more(tmp_path: Path, stand_in: Path) -> None:
    sounds, out = write_folder(tmp_path / "sounds"), tmp_path / "out"
    options = [
        "--weights",
        stand_in,
        *FAST,
        "--fine-tune",
        "layer3",
        "--fine-tune-epochs",
        "2",
        "--label-smoothing",
        "0.1",
        "--augment",
    ]
    result = call("train", sounds, "-o", out, *options)
    assert "Accuracy on held-out clips" in result.output
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["settings"]["fine_tune"]["trainable"] == "layer3"
    assert metrics["settings"]["fine_tune"]["label_smoothing"] == 0.1
    assert metrics["settings"]["augment"] is True
    assert all(check["agreement"] >= 0.97 for check in metrics["exports"])
    assert "Training curves" in (out / "report" / "report.md").read_text()
    assert not (out / ".work").exists()


def test_fine_tuning_options_are_checked(tmp_path: Path, stand_in: Path) -> None:
    sounds = write_folder(tmp_path / "sounds", per_class=2)
    common = ["train", sounds, "-o", tmp_path / "out", "--weights", stand_in, *FAST]
    assert "--fine-tune layer30" in call(*common, "--fine-tune", "layer30", code=1).output
    assert not (tmp_path / "out").exists()  # so the corrected command is not refused
    assert "'--precision'" in call(*common, "--precision", "int4", code=2).output


@pytest.mark.slow
def test_kill_9_while_fine_tuning_then_resume(tmp_path: Path, stand_in: Path) -> None:
    sounds = write_folder(tmp_path / "sounds")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def command(out: Path, *more: str) -> list[str]:
        options = ["--weights", str(stand_in), *FAST, "--fine-tune", "2", "--fine-tune-epochs", "6", "--patience", "9"]
        return [sys.executable, "-m", "tfaudiotl.cli", "train", str(sounds), "-o", str(out), *options, *more]

    subprocess.run(command(tmp_path / "whole"), env=environment, check=True, capture_output=True)
    killed = tmp_path / "killed"
    process = subprocess.Popen(command(killed), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = killed / ".work" / "train" / "blocks.npz"
    deadline = time.monotonic() + 300
    while not state.is_file():  # an epoch with the blocks is finished, the next one has begun
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(command(killed, "--resume"), env=environment, check=True, capture_output=True)
    first, second = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("whole", "killed"))
    measures = [name for name, value in first.items() if isinstance(value, float)]
    assert "accuracy" in measures
    for name in measures:
        assert second[name] == pytest.approx(first[name], abs=1e-6)
    assert second["epochs"] == first["epochs"]


def test_a_folder_with_the_test_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_folder(tmp_path / "data" / "train", {"a": 4, "b": 4}).parent
    make_folder(data / "test", {"b": 1})
    given: list[Clips] = []

    def noted(clips: Clips, *_: object, **__: object) -> None:
        given.append(clips)
        raise ValueError("enough")

    monkeypatch.setattr("tfaudiotl.workflow.train_folder", noted)
    output = call("train", data, "-o", tmp_path / "out", code=1).output
    assert f"{data / 'train'} --test {data / 'test'}" in " ".join(output.split())
    call("train", data / "train", "--test", data / "test", "-o", tmp_path / "out", code=1)
    assert {name: len(part) for name, part in given[0].parts().items()} == {"train": 8, "test": 1}
    make_folder(data / "test", {"c": 1})
    output = call("train", data / "train", "--test", data / "test", "-o", tmp_path / "out", code=1).output
    assert f"{data / 'test'}: has the sub-folder 'c', which is no class of {data / 'train'} (a, b)" in output


@pytest.mark.slow
def test_your_own_classifier_shrinks_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "empty"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    sounds = write_folder(tmp_path / "sounds", per_class=4)
    call("train", sounds, "-o", tmp_path / "big", *FAST)
    assert json.loads((tmp_path / "big" / "metrics.json").read_text())["settings"]["backbone"] == "yamnet_mini"
    arguments = ["distill", sounds, "-o", tmp_path / "small", "--teacher", tmp_path / "big" / "model.keras"]
    result = call(*arguments, "--patches", 100, "--epochs", 1, "--batch-size", 16)
    assert re.search(r"Loss on held-out examples: [\d.]+ \(scores [\d.]+, \w+ [\d.]+\); lower is better", result.output)
    assert sorted(path.name for path in (tmp_path / "small").iterdir()) == ["distill.json", "labels.txt", "model.keras"]
    assert "high" in call("predict", tmp_path / "small" / "model.keras", sounds / "high" / "1-high00.wav").output
    assert "is not empty" in call(*arguments, code=1).output


def test_the_embedded_network_is_the_default() -> None:
    assert pretrained(None, None) == ("yamnet_mini", "audioset")
    assert pretrained("yamnet", None) == ("yamnet", "audioset")
    assert pretrained(None, "some/folder") == ("yamnet", "some/folder")
    assert pretrained("vggish", "some/folder") == ("vggish", "some/folder")


def test_a_training_that_diverged_blocks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sounds, out = write_folder(tmp_path / "sounds", per_class=4), tmp_path / "out"

    def diverged(*_: object, workdir: Path, **__: object) -> None:
        (workdir / "begun").write_text("")
        raise DivergedError("the training diverged")

    monkeypatch.setattr("tfaudiotl.workflow.train_classifier", diverged)
    for _ in range(2):
        assert "the training diverged" in call("train", sounds, "-o", out, code=1).output
        assert not out.exists()
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    call("train", sounds, "-o", out, "--overwrite", code=1)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


def test_what_changed_since_an_interruption_is_named_as_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sounds, out = write_folder(tmp_path / "sounds", per_class=4), tmp_path / "out"

    def stopped(*_: object, workdir: Path, **__: object) -> None:
        (workdir / "begun").write_text("")
        raise KeyboardInterrupt

    monkeypatch.setattr("tfaudiotl.workflow.train_classifier", stopped)
    call("train", sounds, "-o", out, code=130)
    for changed, shown in [
        (["--epochs", 3], "(--epochs 100 then, 3 now)"),
        (["--learning-rate", 0.5], "(--learning-rate 0.002 then, 0.5 now)"),
        (["--fine-tune", 1], "(--fine-tune False then, True now)"),
    ]:
        assert shown in " ".join(call("train", sounds, "-o", out, "--resume", *changed, code=1).output.split())
    call("train", sounds, "-o", out, "--overwrite", "--fine-tune", 1, code=130)
    for changed, shown in [
        (["--fine-tune", 2], "(--fine-tune 1 then, 2 now)"),
        (["--fine-tune", 1, "--epochs", 3], "(--epochs 100 then, 3 now)"),
        (["--fine-tune", 1, "--fine-tune-epochs", 3], "(--fine-tune-epochs 20 then, 3 now)"),
    ]:
        assert shown in " ".join(call("train", sounds, "-o", out, "--resume", *changed, code=1).output.split())


def test_what_only_decoding_shows_is_announced(tmp_path: Path) -> None:
    sounds = write_folder(tmp_path / "sounds", per_class=2)
    (sounds / "low" / "broken.wav").write_text("not a sound")
    output = " ".join(call("train", sounds, "-o", tmp_path / "out", code=1).output.split())
    assert "1 of 7 sounds" in output
    assert "only headers were read; 'tfaudiotl inspect" in output


def test_advice_is_for_the_command_line(tmp_path: Path) -> None:
    sounds = write_folder(tmp_path / "sounds", per_class=1)
    output = call("train", sounds, "-o", tmp_path / "out", code=1).output
    assert "leave it out or record more" in output
    assert "=" not in output.replace("out", "")
