"""A pytest plugin: two clients of one test may have two daemons; what it puts is persisted."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _persisted(request, monkeypatch) -> None:
    if "consistency" not in request.node.name:
        return
    from vineyard.core.client import Client  # pylint: disable=import-outside-toplevel

    put = Client.put
    monkeypatch.setattr(Client, "put", lambda self, value, *args, **kwargs: put(
        self, value, *args, **{"persist": True, **kwargs}))
