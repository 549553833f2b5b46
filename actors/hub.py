"""A model's configuration file from the Hugging Face cache or the hub. What isn't there is asked for once."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from functools import lru_cache

log = logging.getLogger(__name__)

QUICK_S = 5.0
"""Seconds that the hub has to answer at all, where a name is more likely a misspelled directory's."""


def config_file(name: str, *, quick: bool) -> str:
    """The path of a hub model's config.json. Raises whatever says why there is none: offline, gated, misspelled.

    ``quick``: gives up where one try doesn't reach the hub. Otherwise its client tries for half a minute.
    """
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json")
    if isinstance(cached, str):
        return cached
    found = _asked(name, quick)
    if isinstance(found, Exception):
        raise found
    return found


@lru_cache(maxsize=64)
def _asked(name: str, quick: bool) -> str | Exception:
    """The file's path once it is fetched, or why it isn't: several checks ask for a model, and the tries take time."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    try:
        if quick:
            with contextlib.suppress(HfHubHTTPError):  # an answer: the hub can be reached
                get_hf_file_metadata(hf_hub_url(name, "config.json"), timeout=QUICK_S)
        with _one_line_of_retries(name):
            return hf_hub_download(name, "config.json")
    except Exception as error:
        return error


@contextlib.contextmanager
def _one_line_of_retries(name: str) -> Iterator[None]:
    """In place of two lines from the hub's client for each of its tries, one for all."""
    said: list[str] = []

    def keeps(record: logging.LogRecord) -> bool:
        if "[Retry " not in (text := record.getMessage()) and " thrown while requesting " not in text:
            return True
        if not said:
            log.warning("the Hugging Face hub doesn't give %s; it is asked for up to half a minute: %s", name, text)
        said.append(text)
        return False

    client = logging.getLogger("huggingface_hub.utils._http")
    client.addFilter(keeps)
    try:
        yield
    finally:
        client.removeFilter(keeps)
