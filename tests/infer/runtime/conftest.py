from pathlib import Path

import pytest

from infer.runtime import Codec as LightCodec


@pytest.fixture(scope="session")
def light(exported: Path) -> LightCodec:
    return LightCodec.load(exported)
