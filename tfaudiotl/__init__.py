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


WITH_LAYERS = (  # the modules of layers that a saved model may hold
    "augment.chain",
    "augment.layers",
    "backbones.convnet",
    "backbones.embedding",
    "backbones.frontend",
    "backbones.keras_applications",
    "backbones.rawnet2",
    "backbones.scores",
    "backbones.tfhub",
    "backbones.vggish",
    "classifiers.heads",
)


def _register_layers(_keras: ModuleType) -> None:
    for module in WITH_LAYERS:
        importlib.import_module(f"tfaudiotl.{module}")


# keras.saving.load_model finds only layers that are registered. They register when Keras is imported,
# before or after this package, so that a saved classifier opens with nothing but the two imports.
wrapt.register_post_import_hook(_register_layers, "keras")
