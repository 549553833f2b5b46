"""Parquet parts, manifests and the journal on any fsspec URL. fsspec and pyarrow live here only."""
