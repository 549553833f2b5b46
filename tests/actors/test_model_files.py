"""A model's fingerprint is its content: not its name, not its place."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from actors import model_files
from actors.model_files import check_there, fingerprint, locate
from actors.rewards import transformers
from pipeline.errors import ConfigError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text('{"a": 1}')
    (directory / "chat_template.jinja").write_text("{{ messages }}")
    (directory / "model.safetensors").write_bytes((16).to_bytes(8, "little") + bytes(range(256)) * 4096)
    return directory


def altered(model: Path, name: str, change: str) -> Path:
    """A copy of the model whose file ``name`` has one byte more, or one byte changed in its middle."""
    copy = model.with_name(f"altered-{name}-{change}")
    shutil.copytree(model, copy)
    data = bytearray((copy / name).read_bytes())
    if change == "longer":
        data.append(0)
    else:
        data[len(data) // 2] ^= 1
    (copy / name).write_bytes(bytes(data))
    return copy


def test_a_copy_elsewhere_is_the_same_model(model: Path) -> None:
    copy = shutil.copytree(model, model.with_name("copy"))
    (copy / "README.md").write_text("a note changes no number")
    assert fingerprint(str(copy), "generator.model") == fingerprint(str(model), "generator.model")


@pytest.mark.parametrize("name", ["config.json", "chat_template.jinja", "model.safetensors"])
@pytest.mark.parametrize("change", ["longer", "other"])
def test_every_byte_counts(model: Path, name: str, change: str) -> None:
    assert fingerprint(str(altered(model, name, change)), "k") != fingerprint(str(model), "k")


def test_large_weights_are_sampled(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = fingerprint(str(model), "k")
    monkeypatch.setattr(model_files, "FULL_BYTES", 0)
    sampled = fingerprint(str(shutil.copytree(model, model.with_name("sampled"))), "k")
    longer = fingerprint(str(altered(model, "model.safetensors", "longer")), "k")
    head = model.with_name("head")
    shutil.copytree(model, head)
    with (head / "model.safetensors").open("r+b") as file:
        file.seek(10)
        file.write(b"x")
    assert len({full, sampled, longer, fingerprint(str(head), "k")}) == 4


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./model", "~/no-such-model", "a/b/c"])
def test_a_missing_directory_names_the_key(name: str) -> None:
    with pytest.raises(ConfigError, match=r"reward\.model='.*' is no directory"):
        locate(name, "reward.model")


def test_a_hub_name_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=r"generator\.model='nobody/nothing' is neither"):
        fingerprint("nobody/nothing", "generator.model")


def test_a_misspelt_directory_is_answered_with_its_neighbour(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It looks like a name of the hub; generator and reward say the same of it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "reward-8b").mkdir(parents=True)
    near = r"'models/reward-8' \(did you mean 'models/reward-8b'\?\) is neither a directory"
    with pytest.raises(ConfigError, match=rf"generator\.model={near}"):
        check_there("models/reward-8", "generator.model")
    with pytest.raises(ConfigError, match=rf"reward\.model={near}"):
        transformers.fingerprint(transformers.Config(model="models/reward-8"))


def test_an_unset_model_and_a_directory_without_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"generator\.model is not set"):
        locate("", "generator.model")
    with pytest.raises(ConfigError, match=r"holds no config\.json"):
        locate(str(tmp_path), "generator.model")
