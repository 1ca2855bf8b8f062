"""Workers must be able to import these modules."""

import pytest


@pytest.fixture(autouse=True)
def _importable(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository))
