"""What a reward model reads of a prompt and a response: through its template, or as two texts; never a silent guess."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.chat_template import ModelText
from actors.pairs import PairRenderer, Rendered
from actors.protocol import BadRequest
from actors.reward_head import Classifier
from actors.rewards import transformers, vllm
from pipeline.config import build
from pipeline.errors import ConfigError
from pipeline.types import Message
from tests.actors import model_families as families
from tests.actors import tiny_models as tiny

# importing DeBERTa warns of what torch has deprecated
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

USER = Message("user", "w1")


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder with a chat template."""
    return tiny.save_reward(tmp_path_factory.mktemp("reward"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder without one."""
    return tiny.save_reward(tmp_path_factory.mktemp("plain"), template=None)


@pytest.fixture(scope="module", params=["deberta-v2", "deberta-v3", "modernbert-cls"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return families.save_reward(request.param, tmp_path_factory.mktemp("encoders") / request.param)


@pytest.fixture(scope="module")
def deberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return families.save_reward("deberta-v2", tmp_path_factory.mktemp("deberta"))


def renderer(model: Path, template: str = "auto", chat_template: str | None = None) -> PairRenderer:
    return PairRenderer(ModelText("reward", str(model), chat_template), template)


def word(i: int) -> int:
    return len(tiny.SPECIALS) + i


@pytest.mark.parametrize("template", ["auto", "chat"])
def test_pairs_go_through_the_reward_models_template(reward: Path, template: str) -> None:
    found = renderer(reward, template)
    ids = [tiny.BOS, tiny.USER, word(1), tiny.TURN, tiny.ASSISTANT, word(2), tiny.TURN]
    assert (found.template, found.render("w1", "w2")) == ("chat", Rendered(ids))
    with pytest.raises(BadRequest, match="context is 256"):
        found.render("w1 " * 300, "w2")


def test_the_last_token_is_the_one_that_is_pooled(reward: Path, tmp_path: Path) -> None:
    """Pad and end token are one in many models; a classifier then ignores it at the end."""
    path = tmp_path / "padded.jinja"
    path.write_text("{% for m in messages %}{{ m.content }} {% endfor %}<pad><pad>")
    assert renderer(reward, chat_template=str(path)).render("w1", "w2").ids == [word(1), word(2)]


def test_an_encoder_sees_every_token_of_its_template(encoder: Path, tmp_path: Path) -> None:
    path = tmp_path / "padded.jinja"
    path.write_text("<s>{% for m in messages %}{{ m.content }} {% endfor %}<pad>")
    found = renderer(encoder, chat_template=str(path))
    assert found.template == "chat"
    assert found.render("w1", "w2") == Rendered([tiny.BOS, word(1), word(2), tiny.PAD])


def test_two_texts(encoder: Path) -> None:
    found = renderer(encoder, "pair")
    rendered = found.render((USER,), "w2 w3")
    assert rendered.ids == [tiny.BOS, word(1), tiny.EOS, word(2), word(3), tiny.EOS]
    assert found.has_types == (encoder.name == "deberta-v2")
    assert rendered.types == ([0, 0, 0, 1, 1, 1] if found.has_types else None)
    assert found.render("w1", "w2 w3") == rendered
    assert found.render("w1", "").ids == [tiny.BOS, word(1), tiny.EOS, tiny.EOS], "an empty answer is an answer"
    with pytest.raises(BadRequest, match="have 303 tokens for the reward model, whose context is 256"):
        found.render("w1 " * 299, "w2")


@pytest.mark.parametrize(
    "content", [(Message("system", "w0"), USER), (USER, Message("assistant", "w2"), USER), (Message("tool", "w1"),)]
)
def test_two_texts_have_no_room_for_more_turns(encoder: Path, content: tuple[Message, ...]) -> None:
    with pytest.raises(BadRequest, match=r"one user turn, this one has \(.*\); give reward\.chat_template"):
        renderer(encoder, "pair").render(content, "w2")


def test_a_decoder_may_have_been_trained_on_two_texts(tmp_path: Path) -> None:
    """Its tokenizer here puts nothing between them, as some do; the ids are those of the model card."""
    tiny.save_reward(tmp_path, template=None)
    tiny.save_tokenizer(tmp_path, None, bos=False)
    assert renderer(tmp_path, "pair").render("w1", "w2") == Rendered([word(1), word(2)])
    with pytest.raises(BadRequest, match="no tokens"):
        renderer(tmp_path, "pair").render("", "")


def test_no_guess_without_a_template(plain: Path, encoder: Path) -> None:
    for model in (plain, encoder):
        for template in ("auto", "chat"):
            with pytest.raises(
                ConfigError, match=r"no chat template; set reward\.chat_template .*reward\.template=pair"
            ):
                renderer(model, template)


def test_what_no_tokenizer_could_render(deberta: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"reward\.template='Pair'; use one of auto, chat, pair"):
        renderer(deberta, "Pair")
    with pytest.raises(ConfigError, match=r"reward\.template=pair uses no chat template"):
        renderer(deberta, "pair", __file__)
    double = _with_bos_before_both(tiny.save_reward(tmp_path, template=None))
    with pytest.raises(ConfigError, match=r"second BOS before the response; give reward\.chat_template"):
        renderer(double, "pair")


def _with_bos_before_both(directory: Path) -> Path:
    """As Llama's tokenizer does with pairs."""
    import json

    path = directory / "tokenizer.json"
    settings = json.loads(path.read_text())
    processor = settings["post_processor"]
    processor["pair"] = [*processor["single"], *json.loads(json.dumps(processor["single"]).replace('"A"', '"B"'))]
    path.write_text(json.dumps(settings))
    return directory


def test_the_template_belongs_to_the_fingerprint(reward: Path, tmp_path: Path) -> None:
    tiny.save_reward(tmp_path)
    tiny.save_tokenizer(tmp_path, bos=False)
    for module in (transformers, vllm):
        auto, chat, pair = (
            module.fingerprint(module.Config(model=str(tmp_path), template=t)) for t in ("auto", "chat", "pair")
        )
        assert auto == chat != pair


def test_vllm_refuses_early_what_it_has_no_implementation_of(deberta: Path) -> None:
    for act in (vllm.fingerprint, vllm.create):
        with pytest.raises(
            ConfigError, match=r"no implementation of reward\.model=.*deberta-v2.*reward\.engine=transf"
        ):
            act(vllm.Config(model=str(deberta), template="pair"))


def test_vllm_refuses_token_types_that_it_would_drop(tmp_path: Path) -> None:
    """BERT runs in vLLM, where every token would be of type 0."""
    from transformers import BertConfig, BertForSequenceClassification

    settings = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=tiny.VOCABULARY, max_position_embeddings=64, num_labels=1, **settings)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    families.save_encoder_tokenizer(tmp_path)
    assert Classifier(transformers.Config(model=str(tmp_path), template="pair")).renderer.has_types
    with pytest.raises(ConfigError, match=r"token types.*reward\.engine=transformers"):
        vllm.create(vllm.Config(model=str(tmp_path), template="pair"))


@pytest.mark.parametrize(
    ("installed", "name", "expected"),
    [
        (True, "deberta", "transformers"),
        (True, "reward", "vllm"),
        (False, "deberta", "transformers"),
        (False, "reward", "transformers"),
        (True, "nowhere", "vllm"),
    ],
)
def test_auto_takes_an_engine_that_has_the_model(
    installed: bool, name: str, expected: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no model at all is told by the engine, which says more."""
    model = "/nowhere" if name == "nowhere" else str(request.getfixturevalue(name))
    monkeypatch.setattr("pipeline.config.importlib.util.find_spec", lambda _: installed or None)
    settings = {"out": "x", "data": {"input": "p"}, "generator": "toy", "reward": {"engine": "auto", "model": model}}
    assert build(settings).reward.engine == expected


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_list_of_what_vllm_lacks_is_the_installed_ones() -> None:
    """As ``ModelRegistry`` has it: a class of its own, a language model to convert, or one of transformers' to take."""
    import transformers as hf
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSIFIERS
    from vllm.model_executor.models.registry import ModelRegistry

    own = set(ModelRegistry.get_supported_archs())

    def lacks(architecture: str) -> bool:
        if {architecture, architecture.replace("ForSequenceClassification", "ForCausalLM")} & own:
            return False
        model = getattr(hf, architecture)
        return not (model.is_backend_compatible() or model._can_set_attn_implementation())

    assert {kind for kind, architecture in CLASSIFIERS.items() if lacks(architecture)} == vllm.NOT_IN_VLLM
