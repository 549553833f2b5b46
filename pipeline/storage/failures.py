"""What file systems raise, in words that say what, where, and what now; and whether another try could help.

Object stores have exceptions of their own, which this module knows by name: their packages needn't be installed.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from pipeline.errors import StorageError, Unreachable

HOPELESS = {
    errno.ENOSPC: "no space is left: free some, and the same command goes on",
    errno.EDQUOT: "the disk quota is used up: free some space, and the same command goes on",
    errno.EROFS: "the file system is read-only: make it writable, or name another directory",
    errno.EACCES: "permission denied: allow this user to write there, or name another directory",
    errno.EPERM: "not permitted: allow this user to write there, or name another directory",
    errno.ENOENT: "there is no such place: make it (a bucket must be there already), or name another directory",
    errno.ENOTDIR: "a part of this path is a file, not a directory: name another directory",
    errno.EISDIR: "a directory stands there: remove it, or name another directory",
    errno.ENAMETOOLONG: "the name is too long: name another directory",
}
"""Errors of the system that another try would meet again, and what to do."""

CREDENTIALS = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "ProfileNotFound",
    "TokenRetrievalError",
    "DefaultCredentialsError",
)
NETWORKS = (
    "botocore",
    "aiobotocore",
    "aiohttp",
    "gcsfs",
    "adlfs",
    "azure",
    "google",
    "huggingface_hub",
    "httpx",
    "httpx2",
    "requests",
    "urllib3",
    "fsspec",
)
"""Packages whose exceptions are not ``OSError``, though the network or the store is what failed."""


@contextlib.contextmanager
def clear_writing(url: str, remote: bool) -> Iterator[None]:
    """Around a change of a file. Raises ``StorageError`` where another try won't help, ``Unreachable`` where it may."""
    try:
        yield
    except FileExistsError:
        raise
    except Exception as error:
        kinds = {PermissionError: errno.EACCES, FileNotFoundError: errno.ENOENT}  # object stores give no number
        number = (getattr(error, "errno", None) or kinds.get(type(error), 0)) if isinstance(error, OSError) else 0
        if remote and number in (0, errno.EACCES):
            _raise_clear(error, f"{url} can't be written")
        if number in HOPELESS:
            raise StorageError(f"{url} can't be written: {HOPELESS[number]}") from error
        if remote:
            _raise_clear(error, f"{url} can't be written")
        raise


@contextlib.contextmanager
def clear_reading(url: str, remote: bool) -> Iterator[None]:
    """Around a look at files. What isn't there is said as such; otherwise as ``clear_writing``."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise
    except Exception as error:
        if remote:
            _raise_clear(error, f"{url} can't be read")
        raise


def _raise_clear(error: Exception, what: str) -> None:
    """Raises what a store's error means, if it is one."""
    said = f"({str(error).strip() or type(error).__name__})"
    if type(error).__name__ in CREDENTIALS:
        raise StorageError(
            f"{what}: no credentials were found {said}: set them as the store wants them, for S3 with "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, on every node"
        ) from None
    if isinstance(error, ValueError) and str(error).startswith("Invalid endpoint"):
        raise StorageError(f"{what}: {error}; give a URL as AWS_ENDPOINT_URL (http://HOST:PORT)") from None
    if isinstance(error, PermissionError):
        raise StorageError(
            f"{what}: permission denied {said}: check that the credentials are those of this store, and allow them "
            "to read and write there"
        ) from None
    if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in NETWORKS:
        raise Unreachable(
            f"{what}: the store gave no answer, or refused, on every try {said}; check the network and the endpoint "
            "(for S3, AWS_ENDPOINT_URL and AWS_REGION). Nothing is lost: the same command goes on"
        ) from error
