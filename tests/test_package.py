"""The package as a whole: what importing costs, what is public, what a saved model needs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import tfaudiotl


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_loads_neither_tensorflow_nor_keras() -> None:
    code = "import sys, tfaudiotl; print([m for m in ('tensorflow', 'keras', 'numpy', 'sklearn') if m in sys.modules])"
    assert run(code) == "[]"


def test_help_loads_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "tfaudiotl.cli", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Usage" in done.stdout
    loaded = {line.rsplit("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "typer" in loaded
    assert not loaded & {"tensorflow", "keras", "numpy", "scipy", "sklearn", "matplotlib", "soundfile"}


def test_every_public_name_is_there() -> None:
    names = dir(tfaudiotl)
    assert {"Clips", "build_classifier", "evaluate", "AudioError", "__version__"} <= set(names)
    for name in names:
        assert getattr(tfaudiotl, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        getattr(tfaudiotl, names[0] + "nonsense")


# After the model, public names each as the first that a program uses: the package is imported again, the rest is kept.
OPENING = """
{imports}
print(keras.saving.load_model({path!r}, safe_mode=True).output_shape)
for name in ("class_names_of", "YAMNet", "load_model"):
    for module in [module for module in sys.modules if module.split(".")[0] == "tfaudiotl"]:
        del sys.modules[module]
    import tfaudiotl
    print(getattr(tfaudiotl, name).__name__)
"""


@pytest.mark.parametrize("imports", ["import sys, keras, tfaudiotl", "import sys, tfaudiotl, keras"])
def test_a_saved_model_opens_with_two_imports(imports: str, stand_in: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    tfaudiotl.YAMNet(weights=str(stand_in), patch_pooling="avg").save(path)
    out = run(OPENING.format(imports=imports, path=str(path)))
    assert out.splitlines()[-4:] == ["(None, 521)", "class_names_of", "YAMNet", "load_model"]


def test_no_forbidden_parts() -> None:
    pattern = re.compile(r"tf_keras|KerasLayer|import pickle|allow_pickle=True|layers\.Lambda")
    for path in Path(tfaudiotl.__file__).parent.rglob("*.py"):
        assert not pattern.search(path.read_text(encoding="utf-8")), path
