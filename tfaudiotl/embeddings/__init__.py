"""Embeddings of many recordings, fast: each clip is decoded and run through the frozen network once."""
