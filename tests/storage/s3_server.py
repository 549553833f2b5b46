"""A server of the S3 protocol in this process, on loopback, and the environment in which it is found."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import fsspec
import pytest

SECRET = "a-secret-that-nobody-may-read"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": SECRET}


@contextlib.contextmanager
def served() -> Iterator[int]:
    """A server that has one bucket, ``bucket``; its port."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    try:
        with on_s3(f"http://{host}:{port}"), contextlib.suppress(FileExistsError):  # all servers here share one
            s3fs.S3FileSystem().mkdir("bucket")
        yield int(port)
    finally:
        server.stop()


@contextlib.contextmanager
def on_s3(endpoint: str, *, known: bool = True, **options: Any) -> Iterator[None]:
    """Within it, ``s3://`` is at ``endpoint``. ``known``: with credentials; ``options``: of botocore."""
    import s3fs

    environment = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": endpoint, "AWS_EC2_METADATA_DISABLED": "true"}
    with pytest.MonkeyPatch.context() as patch:
        for name in (*CREDENTIALS, "AWS_SESSION_TOKEN", "AWS_PROFILE"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
        patch.setenv("AWS_CONFIG_FILE", "/nonexistent")
        for name, value in (environment | (CREDENTIALS if known else {})).items():
            patch.setenv(name, value)
        patch.setitem(fsspec.config.conf, "s3", {"config_kwargs": options})
        s3fs.S3FileSystem.clear_instance_cache()
        try:
            yield
        finally:
            s3fs.S3FileSystem.clear_instance_cache()
