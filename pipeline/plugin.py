"""From a name in a configuration to the module of that name: ``best_of_n`` is ``pipeline.methods.best_of_n``.

A plugin is one module with a dataclass ``Config`` and one YAML of the same name under ``conf/KIND``. There is no
registry to keep: the folder is the registry.
"""

from __future__ import annotations

import difflib
import pkgutil
import re
from importlib import import_module
from types import ModuleType

from pipeline.errors import ConfigError
from pipeline.sections import MethodConfig, RunConfig, reward_column

PACKAGES = {
    "method": "pipeline.methods",
    "policy": "pipeline.policies",
    "generator": "actors.engines",
    "critic": "actors.engines",
    "reward": "actors.rewards",
}


def names(kind: str) -> list[str]:
    """The plugins of a kind (``method``, ``policy``, ``generator``, ``critic``, ``reward``), sorted."""
    package = import_module(PACKAGES[kind])
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.ispkg)


def load(kind: str, name: str) -> ModuleType:
    """The module of a plugin. Raises ``ConfigError`` that names the nearest one if there is none."""
    known = names(kind)
    if name not in known:
        raise ConfigError(f"no {kind} is called {name!r}{nearest(name, known)}; there are: {', '.join(known)}")
    return import_module(f"{PACKAGES[kind]}.{name}")


def columns(method: str) -> dict[str, type]:
    """What a method tells of each row in ``Result.columns``: names, and ``float``, ``int`` or ``str``.

    They are columns of the results, so they are declared beforehand, as ``COLUMNS`` of the method's module.
    """
    return dict(getattr(load("method", method), "COLUMNS", {}))


def result_columns(run: RunConfig) -> dict[str, type]:
    """The columns of the run's results beside the fixed ones: rewards by further models, then what its method tells."""
    return {**dict.fromkeys(map(reward_column, run.rewards), float), **columns(run.method.name)}


def draws(method: MethodConfig) -> bool:
    """Whether a method with these settings needs a generator: it does unless ``draws`` of its module says no."""
    rule = getattr(load("method", method.name), "draws", None)
    return rule is None or bool(rule(method))


def asks_policy(method: str) -> bool:
    """Whether a method is granted draws by the budget policy: ``ASKS_POLICY`` of its module."""
    return bool(getattr(load("method", method), "ASKS_POLICY", False))


def horizon(method: str) -> tuple[str, ...]:
    """A method's keys that say how far each prompt goes at most, and that may be raised for a run to go on.

    ``HORIZON`` of its module.
    """
    return tuple(getattr(load("method", method), "HORIZON", ()))


def scores_alone(method: MethodConfig) -> bool:
    """Whether a method with these settings has nothing but the responses that a row came with."""
    return getattr(load("method", method.name), "NEEDS_RESPONSES", False) and not draws(method)


def nearest(word: str, known: list[str]) -> str:
    """`` (did you mean 'x'?)`` for the closest known word, or nothing."""
    found = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def respelled(message: str, section: str, word: str = "generator") -> str:
    """An engine's message, in which keys are called ``WORD.KEY``, for the section that the engine stands in."""
    return re.sub(rf"\b{word}(?=\.\w|'s )", section, message)
