from __future__ import annotations

import pytest

from trio_sched._rehearsal.address import ProviderAddress


@pytest.mark.parametrize(("host", "netloc"), [("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80")])
def test_the_host_stands_in_a_url_as_it_has_to(host: str, netloc: str) -> None:
    address = ProviderAddress(host, 80)
    assert (address.host, address.port, address.netloc) == (host, 80, netloc)
    assert address.base_url("a") == f"http://{netloc}/a/v1"
