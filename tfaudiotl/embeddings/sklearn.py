"""Embeddings as a step of a scikit-learn pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from tfaudiotl.backbones.embedding import resolve_embedding
from tfaudiotl.backbones.registry import get_backbone
from tfaudiotl.backbones.spec import Pooling
from tfaudiotl.embeddings.engine import Quantize, Runtime
from tfaudiotl.embeddings.extract import EngineOptions, PatchPooling, embed
from tfaudiotl.errors import check_choice


class AudioEmbedding(TransformerMixin, BaseEstimator):
    """Sound files or arrays in, embeddings out.

    ``make_pipeline(AudioEmbedding("vggish"), StandardScaler(), SVC())`` is the classic; ``GridSearchCV``
    can search over ``embedding``. There is nothing to learn: ``fit`` checks the arguments.

    Args:
        backbone: a name from ``list_backbones()``.
        embedding: a name from ``embedding_layers(backbone)``, several, a name from
            ``embedding_recipes(backbone)``, or None for the backbone's own.
        pooling: "avg", "max", "avgmax" or "freq" over a feature map; None: the recipe's, of layers "avg".
        patch_pooling: "avg" or "max" over the patches of a sound.
        weights: as for the backbone's builder.
        sample_rate: of arrays, Hz.
        store: a folder that keeps the embeddings of files between calls and runs.
        runtime: "auto", "litert" or "keras".
        quantize: None or "int8".
    """

    def __init__(
        self,
        backbone: str = "yamnet",
        *,
        embedding: str | Sequence[str] | None = None,
        pooling: Pooling | None = None,
        patch_pooling: PatchPooling = "avg",
        weights: str | None = "audioset",
        sample_rate: int = 16_000,
        store: str | None = None,
        runtime: Runtime = "auto",
        quantize: Quantize | None = None,
    ):
        self.backbone = backbone
        self.embedding = embedding
        self.pooling = pooling
        self.patch_pooling = patch_pooling
        self.weights = weights
        self.sample_rate = sample_rate
        self.store = store
        self.runtime = runtime
        self.quantize = quantize

    def fit(self, X: Sequence[Any], y: Any = None) -> AudioEmbedding:
        """Checks the embedding's name; ValueError lists those there are."""
        resolve_embedding(get_backbone(self.backbone), self.embedding, self.pooling)
        return self

    def transform(self, X: Sequence[Any]) -> np.ndarray:
        """``(sounds,)`` paths or arrays to float32 ``(sounds, dim)``."""
        check_choice("patch_pooling", self.patch_pooling, PatchPooling)
        found: np.ndarray = embed(
            self.backbone,
            [str(x) if isinstance(x, np.str_) else x for x in X],
            embedding=self.embedding,
            pooling=self.pooling,
            patch_pooling=self.patch_pooling,
            sample_rate=self.sample_rate,
            store=self.store,
            weights=self.weights,
            engine=EngineOptions(runtime=self.runtime, quantize=self.quantize),
        )
        return found

    def __sklearn_is_fitted__(self) -> bool:
        return True
