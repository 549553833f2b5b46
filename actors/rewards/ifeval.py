"""IFEval (arXiv 2311.07911) as a reward: how many of a row's verifiable instructions a response follows.

Nothing is loaded. The checks are those of EleutherAI's lm_eval, which the extra ``ifeval`` installs, and a row names
its own: ``data.reference`` is two columns, a list of instruction ids and a list of their arguments. A row that names
a check which lm_eval doesn't have, or arguments that it doesn't take, is rejected before anything is drawn for it:
lm_eval would make up what is missing, by chance.

Two kinds of checks count sentences or words with NLTK's data ``punkt_tab``, which isn't part of any package. Nothing
is ever downloaded here: without the data, rows with these checks are rejected.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from inspect import signature
from types import SimpleNamespace
from typing import Any, ClassVar

from actors.protocol import BadRequest, ScoreRequest
from pipeline.errors import ConfigError
from pipeline.plugin import nearest
from pipeline.sections import RewardConfig

ACCURACIES = ("strict", "loose")
LEVELS = ("instruction", "prompt")
PACKAGES = ("lm_eval", "langdetect", "immutabledict", "nltk")
"""What the checks are made of; lm_eval installs the others only if asked to."""
PROBE = "A first sentence. A second one."
"""Any text: a check that fails on it fails on all."""
ROWS = 4096


@dataclass
class Config(RewardConfig):
    """``accuracy``, by the paper's names: ``strict`` looks at responses as they are, ``loose`` also without their first
    or last line and without asterisks, and takes the best. ``level``: ``instruction`` rewards with the share of
    instructions that are followed, ``prompt`` with 1 if all of them are, else 0.
    """

    LOADS: ClassVar[bool] = False
    engine: str = "ifeval"
    accuracy: str = "strict"
    level: str = "instruction"

    @property
    def needs_reference(self) -> bool:
        """The instructions."""
        return True

    @property
    def reference_columns(self) -> tuple[str, ...]:
        """As IFEval's own file calls them."""
        return ("instruction_id_list", "kwargs")


def validate(config: Config) -> None:
    """Raises ``ValueError``, with the key at fault, for what the paper has no name for."""
    for key, known in (("accuracy", ACCURACIES), ("level", LEVELS)):
        if (value := getattr(config, key)) not in known:
            raise ValueError(f"reward.{key} = {value!r}: choose one of {', '.join(known)}")


def fingerprint(config: Config) -> str:
    """How responses are looked at, and what is counted. Raises ``ConfigError`` where the checks aren't installed."""
    if missing := [name for name in PACKAGES if not find_spec(name)]:
        raise _not_installed(", ".join(missing))
    return "ifeval " + json.dumps([config.accuracy, config.level])


def check_reference(reference: str) -> None:
    """Raises ``ValueError`` that names the instruction at fault, and what would be right."""
    instructions(reference)


def create(config: Config) -> InstructionChecks:
    """The checks."""
    return InstructionChecks(config)


class InstructionChecks:
    """``protocol.RewardEngine`` without a model."""

    def __init__(self, config: Config) -> None:
        self._config, utils = config, library().utils
        loose = config.accuracy == "loose"
        self._check = utils.test_instruction_following_loose if loose else utils.test_instruction_following_strict

    async def start(self) -> dict[str, Any]:
        """Nothing to load."""
        return {
            "engine": "ifeval",
            "accuracy": self._config.accuracy,
            "level": self._config.level,
            "lm_eval": version("lm_eval"),
        }

    async def score(self, request: ScoreRequest) -> float:
        """A share of the instructions, or 1 or 0. Raises ``BadRequest`` for a row without ones that can be checked."""
        if request.reference is None:
            raise BadRequest("the row has no instructions")
        try:
            asked = instructions(request.reference)
        except ValueError as error:
            raise BadRequest(str(error)) from None
        followed = [self._follows(instruction, request.response) for instruction in asked]
        return float(all(followed)) if self._config.level == "prompt" else sum(followed) / len(followed)

    def _follows(self, instruction: Any, response: str) -> bool:
        try:
            return bool(self._check(instruction, response).follow_all_instructions)
        except RecursionError:  # ten thousand brackets are no JSON
            return False

    async def stop(self) -> None:
        """Nothing to free."""


@lru_cache(maxsize=ROWS)
def instructions(reference: str) -> tuple[Any, ...]:
    """A row's instructions, each as an ``InputExample`` of lm_eval's own.

    Raises ``ValueError`` for what lm_eval doesn't check, or can't here.
    """
    names, arguments = _columns(reference)
    found = []
    for number, (name, kwargs) in enumerate(zip(names, arguments, strict=True)):
        try:
            found.append(_instruction(name, {key: _whole(value) for key, value in (kwargs or {}).items()}))
        except ValueError as error:
            raise ValueError(f"instruction {number} (counted from 0), {name!r}: {error}") from None
    return tuple(found)


def _columns(reference: str) -> tuple[list[str], list[Mapping[str, Any] | None]]:
    """Ids, and as many mappings of arguments."""
    try:
        names, arguments = json.loads(reference)
        ids = bool(names) and all(isinstance(name, str) for name in names)
        if ids and len(names) == len(arguments) and all(isinstance(a, dict | None) for a in arguments):
            return names, arguments
    except (ValueError, TypeError):
        pass
    raise ValueError(
        "the columns of data.reference must hold a list of instruction ids and a list of as many mappings of their "
        f"arguments; this row has {reference[:500]}"
    )


def _whole(value: Any) -> Any:
    """Numbers of tables that made all of them fractions, as they were."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _instruction(name: str, kwargs: Mapping[str, Any]) -> Any:
    """One instruction that lm_eval takes as it is. Raises ``ValueError``."""
    known = library().registry.INSTRUCTION_DICT
    if name not in known:
        raise ValueError(f"lm_eval checks no such instruction{nearest(name, list(known))}; it knows {', '.join(known)}")
    checker = known[name](name)
    takes = list(signature(checker.build_description).parameters)
    for key in takes:
        if key not in kwargs:
            raise ValueError(f"its argument {key} is missing; it takes {', '.join(takes)}")
    for key in kwargs:
        if key not in takes:
            raise ValueError(f"it takes no argument {key}{nearest(key, takes)}, but {', '.join(takes) or 'none'}")
    name, kwargs = _countable(name, kwargs)
    _try(known[name](name), kwargs)
    return library().utils.InputExample(key=0, instruction_id_list=[name], prompt="", kwargs=[dict(kwargs)])


def _countable(name: str, kwargs: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Has a symbol counted as a keyword: where a letter is none from a to z, lm_eval counts another one, by chance.

    IFEval itself asks for ``!`` and ``#`` in two prompts.
    """
    letter = kwargs.get("letter")
    if name != "keywords:letter_frequency" or not isinstance(letter, str) or re.fullmatch(r"[a-zA-Z]|\s|..+|", letter):
        return name, kwargs
    counted = {"keyword": re.escape(letter), "frequency": kwargs["let_frequency"], "relation": kwargs["let_relation"]}
    return "keywords:frequency", counted


def _try(checker: Any, kwargs: Mapping[str, Any]) -> None:
    """Raises ``ValueError`` for arguments that the check doesn't work with, or replaces by others."""
    try:
        checker.build_description(**{key: value for key, value in kwargs.items() if value})  # as lm_eval will do
        checker.check_following(PROBE)
    except Exception as error:  # regular expressions, comparisons of a text with a number, tables without a key, ...
        if type(error) is LookupError:
            raise ValueError(
                "it needs NLTK's data punkt_tab, which this machine doesn't have; have every machine run "
                "`python -m nltk.downloader punkt_tab` once (NLTK_DATA names where else it lies), or leave the row out"
            ) from None
        raise ValueError(f"lm_eval can't work with {dict(kwargs)} ({type(error).__name__}: {error})") from None
    taken = checker.get_instruction_args() or {}
    for key, value in kwargs.items():
        if _plain(taken.get(key)) != _plain(value):
            raise ValueError(f"{key} = {value!r} is nothing that lm_eval takes")


def _plain(value: Any) -> Any:
    """An argument without what checks change in it: capitals, space at its ends, the order of a list."""
    if isinstance(value, list):
        return {_plain(item) for item in value}
    return value.strip().lower() if isinstance(value, str) else value


@cache
def library() -> SimpleNamespace:
    """``registry`` and ``utils`` of lm_eval's IFEval. Raises ``ConfigError`` where they aren't installed.

    Languages are detected with a fixed seed, so that a response has one reward. Importing the checks downloads NLTK's
    data where they are missing, but in processes of rank 0 alone; so this one has another rank meanwhile.
    """
    rank = os.environ.get("LOCAL_RANK")
    os.environ["LOCAL_RANK"] = "1"
    try:
        import langdetect
        from lm_eval.tasks.ifeval import instructions_registry, utils
    except ImportError as error:
        raise _not_installed(error.name or str(error)) from None
    finally:
        del os.environ["LOCAL_RANK"]
        os.environ.update({} if rank is None else {"LOCAL_RANK": rank})
    langdetect.DetectorFactory.seed = 0
    return SimpleNamespace(registry=instructions_registry, utils=utils)


def _not_installed(missing: str) -> ConfigError:
    return ConfigError(
        f"reward.engine = ifeval: this machine lacks {missing}; run pip install 'raylign[ifeval]' on every machine of "
        "the cluster"
    )
