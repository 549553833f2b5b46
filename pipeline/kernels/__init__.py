"""Mathematics as plain functions: numpy, scipy and ``pipeline.types`` in, numbers out; no IO, no clock, no globals."""
