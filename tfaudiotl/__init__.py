"""tfaudiotl: your own sound classifier on a pretrained audio network, in Keras 3.

The public names stand in ``__init__.pyi`` and load on first use, so that ``import tfaudiotl`` costs nothing;
TensorFlow comes with the first name that needs it.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import lazy_loader
import wrapt

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def _register_layers(_keras: ModuleType) -> None:
    importlib.import_module("tfaudiotl._keras_layers")


# keras.saving.load_model finds only layers that are registered. They register when Keras is imported,
# before or after this package, so that a saved classifier opens with nothing but the two imports.
wrapt.register_post_import_hook(_register_layers, "keras")
