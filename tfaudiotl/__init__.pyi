"""The public names, once: ``__init__.py`` loads each on first use, and type checkers read them here."""

from ._version import __version__ as __version__
from .audio.files import audio_info as audio_info, load_audio as load_audio, write_audio as write_audio
from .audio.waveform import check_waveform as check_waveform, resample as resample
from .augment.chain import augment_dataset as augment_dataset, mild_augmentation as mild_augmentation
from .augment.layers import (
    MixUp as MixUp,
    RandomCrop as RandomCrop,
    RandomEqualizer as RandomEqualizer,
    RandomGain as RandomGain,
    RandomNoise as RandomNoise,
    RandomReverb as RandomReverb,
    RandomShift as RandomShift,
    RandomSpeed as RandomSpeed,
    SpecAugment as SpecAugment,
)
from .backbones.convnet import ConvNet as ConvNet
from .backbones.embedding import (
    LayerInfo as LayerInfo,
    RecipeInfo as RecipeInfo,
    embedding_layers as embedding_layers,
    embedding_model as embedding_model,
    embedding_recipes as embedding_recipes,
)
from .backbones.rawnet2 import RawNet2 as RawNet2
from .backbones.registry import list_backbones as list_backbones
from .backbones.scores import (
    class_names_of as class_names_of,
    set_background as set_background,
    set_thresholds as set_thresholds,
)
from .backbones.vggish import VGGish as VGGish, vggish_postprocess as vggish_postprocess
from .backbones.yamnet import YAMNet as YAMNet, YAMNetMini as YAMNetMini, decode_predictions as decode_predictions
from .classifiers.build import build_classifier as build_classifier, classifier_from_sklearn as classifier_from_sklearn
from .classifiers.edit import fold_batch_norm as fold_batch_norm, freeze as freeze, replace_head as replace_head
from .data.clips import Clips as Clips
from .data.tfrecords import read_records as read_records, write_records as write_records
from .devices import set_precision as set_precision, several_hosts as several_hosts, strategy as strategy
from .embeddings.extract import (
    AudioEmbedding as AudioEmbedding,
    EngineOptions as EngineOptions,
    Extractor as Extractor,
    embed as embed,
    embed_to_store as embed_to_store,
)
from .embeddings.probe import ProbeTable as ProbeTable, probe_layers as probe_layers
from .embeddings.store import EmbeddingStore as EmbeddingStore, StoreError as StoreError
from .errors import (
    AudioError as AudioError,
    AudioErrors as AudioErrors,
    ExportError as ExportError,
    WeightsError as WeightsError,
)
from .evaluation.measures import (
    Calibration as Calibration,
    EqualErrorRate as EqualErrorRate,
    Interval as Interval,
    Threshold as Threshold,
    averages as averages,
    bootstrap_interval as bootstrap_interval,
    calibration as calibration,
    choose_threshold as choose_threshold,
    choose_thresholds as choose_thresholds,
    equal_error_rate as equal_error_rate,
    roc_auc as roc_auc,
    top_k_accuracy as top_k_accuracy,
    with_thresholds as with_thresholds,
)
from .evaluation.metrics import Evaluation as Evaluation, evaluate_scores as evaluate_scores
from .evaluation.report import Report as Report, write_report as write_report
from .export.savedmodel import export_saved_model as export_saved_model
from .export.tflite import export_tflite as export_tflite
from .runtime.evaluate import evaluate as evaluate
from .runtime.events import Event as Event
from .runtime.load import load_model as load_model
from .runtime.predictor import Predictor as Predictor, classify_sound as classify_sound
from .runtime.stream import StreamingClassifier as StreamingClassifier
from .tflite.metadata import Metadata as Metadata
from .training.compare import (
    Advice as Advice,
    Comparison as Comparison,
    Strategy as Strategy,
    advise as advise,
    compare_strategies as compare_strategies,
)
from .training.distill import (
    Distilled as Distilled,
    DistillOptions as DistillOptions,
    MixOptions as MixOptions,
    distill as distill,
)
from .training.fine_tune import fine_tune as fine_tune
from .training.head import embedded as embedded, head_model as head_model
from .training.options import FineTuneOptions as FineTuneOptions, FitOptions as FitOptions
from .training.train import train_classifier as train_classifier
from .training.tune import SearchSpace as SearchSpace, tune as tune
from .workflow import save_student as save_student, train_folder as train_folder
