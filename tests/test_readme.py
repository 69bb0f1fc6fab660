"""The README's commands and code, run as printed but for one quantisation and a short distillation, on made-up sounds.

The stand-in lies in TF Hub's cache.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.sounds import sound, write_folder
from tfaudiotl.audio.files import write_audio
from tfaudiotl.backbones.registry import get_backbone

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DEMO = "tfaudiotl demo"
TRAIN = "tfaudiotl train sounds/ --backbone yamnet -o out/"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def run(command: list[str], folder: Path, cache: Path) -> None:
    environment = {**os.environ, "TFHUB_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def place(stand_in: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with what the README assumes, and a TF Hub cache that has YAMNet already."""
    folder, cache = tmp_path_factory.mktemp("readme"), tmp_path_factory.mktemp("cache")
    handle = get_backbone("yamnet").presets["audioset"]
    shutil.copytree(stand_in, cache / hashlib.sha1(handle.encode()).hexdigest())
    write_folder(folder / "sounds", per_class=6)
    write_folder(folder / "other_sounds", per_class=2)
    write_folder(folder / "recordings", per_class=2)
    rng = np.random.default_rng(0)
    write_audio(folder / "street.wav", np.concatenate([sound(kind, rng, seconds=2) for kind in ("low", "high")]))
    return folder, cache


def test_the_commands_are_in_the_readme_as_ci_runs_them() -> None:
    assert f"pip install . && {DEMO}" in README
    pytest_options = "-m pytest -n auto --dist loadfile"
    assert f'pip install ".[test]" && python {pytest_options} -m "not slow"' in README
    assert f"`python {pytest_options} -m slow`" in README
    checks = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert f"{pytest_options} -q" in checks
    assert 'pytest "not slow"\n    pytest slow' in checks


@pytest.mark.slow
def test_commands(place: tuple[Path, Path]) -> None:
    lines = [line.split("#")[0] for block in blocks("bash") for line in block.splitlines()]
    commands = [DEMO, *(line for line in lines if line.startswith("tfaudiotl "))]
    assert commands[1] == TRAIN
    assert len(commands) == 10
    for command in commands:
        # The stand-in's random weights do not bear 8 bits; benchmarks/edge.py measures real ones.
        command = command.replace("--quantize dynamic", "--quantize float16")
        command = command.replace("tfaudiotl distill", "tfaudiotl distill --patches 100 --epochs 1")
        run([sys.executable, "-m", "tfaudiotl.cli", *shlex.split(command)[1:]], *place)
    assert (place[0] / "small.tflite").is_file()


@pytest.mark.slow
def test_code(place: tuple[Path, Path]) -> None:
    (code,) = blocks("python")
    run([sys.executable, "-c", code], *place)
    assert (place[0] / "classifier.tflite").is_file()


@pytest.mark.slow
def test_noise_colours(place: tuple[Path, Path]) -> None:
    run([sys.executable, str(ROOT / "examples" / "noise_colours.py"), "colours"], *place)
    assert (place[0] / "colours" / "noise_colours.tflite").is_file()


@pytest.mark.slow
def test_example(place: tuple[Path, Path]) -> None:
    run([sys.executable, str(ROOT / "examples" / "classify_folder.py"), "sounds", "audioset", "example"], *place)
    assert (place[0] / "example.keras").is_file()


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
