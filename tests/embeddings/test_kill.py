"""``tfaudiotl embed`` killed at random moments: whole shards stay, and the end is that of an undisturbed run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tfaudiotl.embeddings.store import EmbeddingStore

# One process imports TensorFlow once and forks a child for every run; each child is the command line itself.
# Small shards, so that a short run has many moments at which it can be killed.
DRIVER = """
import os, random, signal, sys, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tfaudiotl.embeddings.extract as extract, tfaudiotl.backbones.vggish, tensorflow
from tfaudiotl.cli import app
extract.SHARD_BYTES, extract.SHARD_SECONDS = 20_000, 0.05
sounds, weights, store, undisturbed, kills = sys.argv[1:]

def start(store):
    child = os.fork()
    if not child:
        app(["embed", sounds, "-o", store, "--weights", weights, "--embedding", "layer2,layer4", "--runtime", "keras"])
        os._exit(0)
    return child

def shards(store):
    folder = os.path.join(store, "shards")
    return {name: os.stat(os.path.join(folder, name)).st_mtime_ns for name in os.listdir(folder)
            if not name.startswith(".")} if os.path.isdir(folder) else {}

began = time.monotonic()
assert os.waitpid(start(undisturbed), 0)[1] == 0
length = time.monotonic() - began
rng = random.Random(4)
before = {}
killed = 0
for _ in range(int(kills)):
    child = start(store)
    time.sleep(rng.uniform(0.3, 1.0) * length)
    try:
        os.kill(child, signal.SIGKILL)
    except ProcessLookupError:
        pass
    killed += os.waitpid(child, 0)[1] == signal.SIGKILL
    now = shards(store)
    assert before.items() <= now.items(), "a finished shard was computed again"
    before = now
assert os.waitpid(start(store), 0)[1] == 0
assert before.items() <= shards(store).items(), "a finished shard was computed again"
print("KILLED", killed, len(before))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_runs_lose_nothing(kills: int, tmp_path: Path, stand_in: Path) -> None:
    rng = np.random.default_rng(6)
    (tmp_path / "sounds").mkdir()
    for number in range(60):
        noise = rng.uniform(-0.5, 0.5, 32_000)
        soundfile.write(tmp_path / "sounds" / f"{number:02d}.wav", noise, 16_000)
    stores = tmp_path / "killed", tmp_path / "undisturbed"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [str(tmp_path / "sounds"), str(stand_in), *map(str, stores), str(kills)]
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    killed = int(next(line for line in done.stdout.splitlines() if line.startswith("KILLED")).split()[1])
    assert killed >= 1, f"no run was killed before its end in {time.monotonic() - start:.0f} s"
    first, second = map(EmbeddingStore, stores)
    assert first.files == second.files
    assert len(first.files) == 60
    for path in sorted((tmp_path / "sounds").iterdir()):
        for layer in ("layer2", "layer4"):
            rows, times = first.read(path, layer)
            expected, expected_times = second.read(path, layer)
            np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)  # Keras rounds by the batch
            np.testing.assert_array_equal(times, expected_times)
    assert not [entry for entry in (stores[0] / "shards").iterdir() if entry.name.startswith(".")]
