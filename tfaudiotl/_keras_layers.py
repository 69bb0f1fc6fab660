"""Registers every layer of this package that a saved model may hold, by importing the modules that have them.

Whole modules, not names from them: the import of Keras inside one of these modules comes here while that
module is still being loaded.
"""

import tfaudiotl.augment.chain
import tfaudiotl.augment.mixup_specaugment
import tfaudiotl.backbones.convnet
import tfaudiotl.backbones.frontend
import tfaudiotl.backbones.keras_applications
import tfaudiotl.backbones.rawnet2
import tfaudiotl.backbones.scores
import tfaudiotl.backbones.tfhub
import tfaudiotl.backbones.vggish
import tfaudiotl.classifiers.heads  # noqa: F401
