"""tfaudiotl: your own sound classifier on a pretrained audio network, in Keras 3.

The public names load on first use, so that ``import tfaudiotl`` costs nothing; TensorFlow comes with the
first name that needs it.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

import wrapt

from tfaudiotl._version import __version__
from tfaudiotl.errors import AudioError, AudioErrors, ExportError, WeightsError

if TYPE_CHECKING:
    from tfaudiotl.audio.chain import augment_dataset, mild_augmentation
    from tfaudiotl.audio.clips import Clips
    from tfaudiotl.audio.files import audio_info, load_audio, write_audio
    from tfaudiotl.audio.mixup_specaugment import MixUp, SpecAugment
    from tfaudiotl.audio.tfrecords import read_records, write_records
    from tfaudiotl.audio.waveform import check_waveform, resample
    from tfaudiotl.audio.waveforms import (
        RandomCrop,
        RandomEqualizer,
        RandomGain,
        RandomNoise,
        RandomReverb,
        RandomShift,
        RandomSpeed,
    )
    from tfaudiotl.backbones.convnet import ConvNet
    from tfaudiotl.backbones.pca import vggish_postprocess
    from tfaudiotl.backbones.rawnet2 import RawNet2
    from tfaudiotl.backbones.registry import list_backbones
    from tfaudiotl.backbones.scores import class_names_of, set_background, set_thresholds
    from tfaudiotl.backbones.vggish import VGGish
    from tfaudiotl.backbones.yamnet import YAMNet, decode_predictions
    from tfaudiotl.backbones.yamnet_mini import YAMNetMini
    from tfaudiotl.embeddings.extract import EngineOptions, Extractor, embed, embed_to_store
    from tfaudiotl.embeddings.probe import ProbeTable, probe_layers
    from tfaudiotl.embeddings.store import EmbeddingStore, StoreError
    from tfaudiotl.embeddings.transformer import AudioEmbedding
    from tfaudiotl.evaluation.bootstrap import Interval, bootstrap_interval
    from tfaudiotl.evaluation.calibration import Calibration, calibration
    from tfaudiotl.evaluation.metrics import Evaluation, evaluate_scores
    from tfaudiotl.evaluation.ranking import EqualErrorRate, averages, equal_error_rate, roc_auc, top_k_accuracy
    from tfaudiotl.evaluation.thresholds import Threshold, choose_threshold, choose_thresholds, with_thresholds
    from tfaudiotl.export.load import load_model
    from tfaudiotl.export.metadata import Metadata
    from tfaudiotl.export.savedmodel import export_saved_model
    from tfaudiotl.export.tflite import export_tflite
    from tfaudiotl.models.builder import build_classifier, embedding_model
    from tfaudiotl.models.fold import fold_batch_norm
    from tfaudiotl.models.freeze import freeze
    from tfaudiotl.models.info import LayerInfo, embedding_layers
    from tfaudiotl.models.linear import classifier_from_sklearn
    from tfaudiotl.models.replace import replace_head
    from tfaudiotl.runtime.classify import classify_sound
    from tfaudiotl.runtime.evaluate import evaluate
    from tfaudiotl.runtime.events import Event
    from tfaudiotl.runtime.predictor import Predictor
    from tfaudiotl.runtime.stream import StreamingClassifier
    from tfaudiotl.training.advise import Advice, advise
    from tfaudiotl.training.compare import Comparison, Strategy, compare_strategies
    from tfaudiotl.training.devices import set_precision, several_hosts, strategy
    from tfaudiotl.training.distill import Distilled, DistillOptions, MixOptions, distill
    from tfaudiotl.training.fine_tune import fine_tune
    from tfaudiotl.training.head import embedded, head_model
    from tfaudiotl.training.options import FineTuneOptions, FitOptions
    from tfaudiotl.training.recipe import train_classifier
    from tfaudiotl.training.tune import SearchSpace, tune
    from tfaudiotl.workflow import save_student, train_folder

# Public name -> the module that has it.
_LAZY = {
    "Clips": "audio.clips",
    "audio_info": "audio.files",
    "check_waveform": "audio.waveform",
    "load_audio": "audio.files",
    "resample": "audio.waveform",
    "write_audio": "audio.files",
    "RandomCrop": "audio.waveforms",
    "RandomEqualizer": "audio.waveforms",
    "RandomGain": "audio.waveforms",
    "RandomNoise": "audio.waveforms",
    "RandomReverb": "audio.waveforms",
    "RandomShift": "audio.waveforms",
    "RandomSpeed": "audio.waveforms",
    "MixUp": "audio.mixup_specaugment",
    "SpecAugment": "audio.mixup_specaugment",
    "augment_dataset": "audio.chain",
    "mild_augmentation": "audio.chain",
    "read_records": "audio.tfrecords",
    "write_records": "audio.tfrecords",
    "YAMNet": "backbones.yamnet",
    "YAMNetMini": "backbones.yamnet_mini",
    "VGGish": "backbones.vggish",
    "RawNet2": "backbones.rawnet2",
    "ConvNet": "backbones.convnet",
    "vggish_postprocess": "backbones.pca",
    "class_names_of": "backbones.scores",
    "set_background": "backbones.scores",
    "set_thresholds": "backbones.scores",
    "decode_predictions": "backbones.yamnet",
    "list_backbones": "backbones.registry",
    "build_classifier": "models.builder",
    "embedding_model": "models.builder",
    "fold_batch_norm": "models.fold",
    "freeze": "models.freeze",
    "replace_head": "models.replace",
    "LayerInfo": "models.info",
    "classifier_from_sklearn": "models.linear",
    "embedding_layers": "models.info",
    "AudioEmbedding": "embeddings.transformer",
    "EmbeddingStore": "embeddings.store",
    "EngineOptions": "embeddings.extract",
    "Extractor": "embeddings.extract",
    "ProbeTable": "embeddings.probe",
    "StoreError": "embeddings.store",
    "embed": "embeddings.extract",
    "embed_to_store": "embeddings.extract",
    "probe_layers": "embeddings.probe",
    "Advice": "training.advise",
    "advise": "training.advise",
    "Comparison": "training.compare",
    "Strategy": "training.compare",
    "compare_strategies": "training.compare",
    "several_hosts": "training.devices",
    "strategy": "training.devices",
    "set_precision": "training.devices",
    "SearchSpace": "training.tune",
    "tune": "training.tune",
    "FineTuneOptions": "training.options",
    "embedded": "training.head",
    "head_model": "training.head",
    "fine_tune": "training.fine_tune",
    "FitOptions": "training.options",
    "train_classifier": "training.recipe",
    "DistillOptions": "training.distill",
    "Distilled": "training.distill",
    "MixOptions": "training.distill",
    "distill": "training.distill",
    "save_student": "workflow",
    "Evaluation": "evaluation.metrics",
    "evaluate_scores": "evaluation.metrics",
    "EqualErrorRate": "evaluation.ranking",
    "averages": "evaluation.ranking",
    "equal_error_rate": "evaluation.ranking",
    "roc_auc": "evaluation.ranking",
    "top_k_accuracy": "evaluation.ranking",
    "Interval": "evaluation.bootstrap",
    "bootstrap_interval": "evaluation.bootstrap",
    "Calibration": "evaluation.calibration",
    "calibration": "evaluation.calibration",
    "Threshold": "evaluation.thresholds",
    "choose_threshold": "evaluation.thresholds",
    "choose_thresholds": "evaluation.thresholds",
    "with_thresholds": "evaluation.thresholds",
    "evaluate": "runtime.evaluate",
    "export_saved_model": "export.savedmodel",
    "export_tflite": "export.tflite",
    "load_model": "export.load",
    "Event": "runtime.events",
    "Metadata": "export.metadata",
    "StreamingClassifier": "runtime.stream",
    "classify_sound": "runtime.classify",
    "Predictor": "runtime.predictor",
    "train_folder": "workflow",
}

__all__ = ["AudioError", "AudioErrors", "ExportError", "WeightsError", "__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'tfaudiotl' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"tfaudiotl.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _register_layers(_keras: ModuleType) -> None:
    importlib.import_module("tfaudiotl.models.layers")


# keras.saving.load_model finds only layers that are registered. They register when Keras is imported,
# before or after this package, so that a saved classifier opens with nothing but the two imports.
wrapt.register_post_import_hook(_register_layers, "keras")
