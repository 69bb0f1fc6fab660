"""The classic: features of YAMNet or VGGish and a support vector machine, the layer chosen by grid search.

python examples/svm_on_embeddings.py FOLDER [--backbone yamnet] [--embedding layer8,layer13,embedding] [--weights PATH]

FOLDER has one sub-folder of recordings per class. Embeddings are kept in FOLDER's neighbour, so each layer is
computed once however often the search asks for it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import tfaudiotl as tl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="yamnet")
    parser.add_argument("--embedding", default="layer8,layer13,embedding")
    parser.add_argument("--weights", default="audioset")
    options = parser.parse_args()
    clips = tl.Clips.from_directory(options.folder)
    labels = [names[0] for names in clips.labels]
    store = options.folder.with_name(f"{options.folder.name}-{options.backbone}-store")
    embedding = tl.AudioEmbedding(options.backbone, weights=options.weights, store=str(store))
    pipeline = make_pipeline(embedding, StandardScaler(), SVC())
    search = GridSearchCV(pipeline, {"audioembedding__embedding": options.embedding.split(",")}, cv=3)
    search.fit(list(clips.paths), labels)
    print(f"best layer: {search.best_params_['audioembedding__embedding']}, accuracy {search.best_score_:.3f}")


if __name__ == "__main__":
    main()
