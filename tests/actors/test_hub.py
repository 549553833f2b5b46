"""Names of the hub: what is asked for, how often, and what is said of tries; with a hub that is made up."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError

from actors import hub
from actors.model_files import check_there, model_type
from pipeline.errors import ConfigError


class Hub:
    """What a client of the hub sees: ``answers`` it or not, has the file or not; and what it was asked for."""

    def __init__(self, place: Path, reached: bool, there: bool) -> None:
        self._place, self._reached, self._there = place, reached, there
        self.asked: list[str] = []

    def metadata(self, url: str, **options: Any) -> None:
        self.asked.append("quick")
        self._answer()

    def download(self, name: str, file: str) -> str:
        self.asked.append(name)
        client = logging.getLogger("huggingface_hub.utils._http")
        if not self._reached:
            for i in range(1, 6):
                client.warning("'no route' thrown while requesting HEAD https://hub")
                client.warning(f"Retrying in {2**i}s [Retry {i}/5].")
        self._answer()
        (self._place / file).write_text('{"model_type": "llama"}')
        return str(self._place / file)

    def _answer(self) -> None:
        if not self._reached:
            raise ConnectionError("no route")
        if not self._there:
            request = httpx2.Request("HEAD", "https://hub")
            raise HfHubHTTPError("404", response=httpx2.Response(404, request=request))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    hub._asked.cache_clear()

    def make(*, reached: bool, there: bool) -> Hub:
        found = Hub(tmp_path, reached, there)
        monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", found.metadata)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", found.download)
        return found

    yield make
    hub._asked.cache_clear()


def test_a_name_that_begins_as_a_directory_here_gets_one_quick_try(made: Any, tmp_path: Path) -> None:
    (tmp_path / "models" / "reward").mkdir(parents=True)
    found = made(reached=False, there=False)
    for _ in range(3):  # engine, model and generator may all ask
        assert model_type("models/rewrad") is None
        with pytest.raises(ConfigError, match=r"did you mean 'models/reward'.*ConnectionError: no route"):
            check_there("models/rewrad", "reward.model")
    assert found.asked == ["quick"]


@pytest.mark.parametrize("there", [True, False])
def test_where_the_hub_answers_a_directory_of_that_name_changes_nothing(made: Any, tmp_path: Path, there: bool) -> None:
    (tmp_path / "org").mkdir()
    found = made(reached=True, there=there)
    assert model_type("org/model") == ("llama" if there else None)
    assert found.asked == ["quick", "org/model"]


def test_a_hub_name_is_tried_as_ever_but_once_and_in_one_line(made: Any, caplog: pytest.LogCaptureFixture) -> None:
    found = made(reached=False, there=False)
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"'org/model' is neither a directory"):
            check_there("org/model", "reward.model")
    assert found.asked == ["org/model"]
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(
        "the Hugging Face hub doesn't give org/model; it is asked for up to half a minute: 'no route'"
    )
    logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
    assert len(caplog.records) == 2  # nothing is hidden afterwards


def test_a_path_of_the_gallery_says_where_it_lies(made: Any) -> None:
    found = made(reached=False, there=False)
    with pytest.raises(ConfigError, match=r"it lies in Raylign's own directory, .*: run the command there"):
        check_there("demo/reward_model", "reward.model")
    assert found.asked == ["quick"]
