"""What many tests share: the real data where it lies, seeded noise, and a stand-in for TF Hub's YAMNet."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Plots in tests go to files.
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real weights and recordings beside the checkout; tests that need it skip without it."""
    folder = Path(os.environ.get("TFAUDIOTL_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"{folder.name}/ with real weights and recordings is not here")
    return folder


@pytest.fixture(scope="session")
def hub_yamnet(shared: Path) -> str:
    """Path of the real YAMNet SavedModel."""
    return str(shared / "hub" / "yamnet")


@pytest.fixture
def rng() -> np.random.Generator:
    """The same random numbers in every run."""
    return np.random.default_rng(20_061)


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel of TF Hub's YAMNet structure with seeded random variables."""
    from tests.helpers.yamnet import write_stand_in

    return write_stand_in(tmp_path_factory.mktemp("hub") / "yamnet")


@pytest.fixture(scope="session")
def stand_in_vggish(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel of TF Hub's VGGish structure with seeded random variables and narrower dense layers."""
    from tests.helpers.vggish import write_stand_in

    return write_stand_in(tmp_path_factory.mktemp("hub") / "vggish")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that download real weights run only when asked for: TFAUDIOTL_NETWORK=1."""
    if os.environ.get("TFAUDIOTL_NETWORK") != "1":
        for item in items:
            if "network" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="downloads weights; TFAUDIOTL_NETWORK=1 runs it"))


@pytest.fixture(autouse=True)
def same_precision() -> Iterator[None]:
    """A test that sets Keras's policy, or runs a command that does, leaves the next one in float32."""
    yield
    if "keras" in sys.modules:
        sys.modules["keras"].config.set_dtype_policy("float32")
