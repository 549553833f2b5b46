"""What all tests share. Nothing is downloaded, and no engine reports anything to anyone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# A deadline measures the machine, not the code; derandomized, so that a failure is one for everybody.
settings.register_profile(
    "raylign", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("raylign")

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real prompts beside the checkout; they are not part of the project."""
    if not SHARED.is_dir():
        pytest.skip("the shared data sets do not lie beside this checkout")
    return SHARED


@pytest.fixture
def in_root(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs the test in the repository root."""
    monkeypatch.chdir(ROOT)
    return ROOT
