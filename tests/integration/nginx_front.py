"""nginx in front of a rehearsal provider: a peer whose refusals and whose bookkeeping are not ours.

It runs in the foreground and writes, its configuration included, to a folder of its own. It inherits its listening
socket, so no port is asked for twice and nobody waits for it to get ready: who connects early waits in the backlog. A
single worker makes its counts exact: it counts a call out before it reads the next one.

The access log says what nginx let through and how long that took, so throughput is measured by the peer.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from string import Template

import attrs
import pytest
import trio

__all__ = ["LoggedCall", "NginxFront", "integration", "needs_nginx", "nginx_front"]

integration = [
    pytest.mark.integration,
    pytest.mark.skipif(
        os.environ.get("TRIO_SCHED_INTEGRATION") != "1", reason="real peers, run by `nox -s integration`"
    ),
]

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed here")

_CONFIG = Template("""\
daemon off;
worker_processes 1;
$user
pid $folder/nginx.pid;
error_log stderr warn;
events { worker_connections 2048; }
http {
    log_format calls '$$status $$request_time';
    access_log $folder/calls.log calls;
    client_body_temp_path $folder/body;
    proxy_temp_path $folder/proxy;
    fastcgi_temp_path $folder/fastcgi;
    uwsgi_temp_path $folder/uwsgi;
    scgi_temp_path $folder/scgi;
    keepalive_requests 1000000;
    limit_conn_zone $$server_port zone=in_flight:1m;
    limit_conn_status 429;
    limit_conn_log_level info;
    limit_req_zone $$server_port zone=arrivals:1m rate=${rate}r/s;
    limit_req_status 429;
    limit_req_log_level notice;
    upstream rehearsal {
        server $upstream;
        keepalive 256;
    }
    server {
        listen $address;
        location / {
            $limit
            proxy_pass http://rehearsal;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host 127.0.0.1;
        }
    }
}
""")


@attrs.frozen
class LoggedCall:
    """One request as nginx logged it when it was over: its status, and the seconds it was in process."""

    status: int
    seconds: float


@attrs.frozen
class NginxFront:
    """A running nginx. `address` is where it listens, as host and port in one text."""

    address: str
    log: Path

    def calls(self) -> Sequence[LoggedCall]:
        """Every request that is over, in the order of their ends."""
        lines = (line.split() for line in self.log.read_text().splitlines())
        return [LoggedCall(int(status), float(seconds)) for status, seconds in lines]


@asynccontextmanager
async def nginx_front(
    folder: Path, upstream: str, *, limit: str, requests_per_second: int = 1
) -> AsyncGenerator[NginxFront, None]:
    """Run nginx before `upstream` with `limit`, a directive on the zone `in_flight` or `arrivals`."""
    assert NGINX is not None, "for tests marked with `needs_nginx`"
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        address = "{}:{}".format(*listener.getsockname())
        config = folder / "nginx.conf"
        # Started as root, the worker would become somebody who may not use the folder.
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(
            _CONFIG.substitute(
                folder=folder, user=user, upstream=upstream, address=address, limit=limit, rate=requests_per_second
            )
        )
        start = partial(
            trio.run_process,
            [NGINX, "-e", "stderr", "-p", str(folder), "-c", str(config)],
            pass_fds=[listener.fileno()],
            env={**os.environ, "NGINX": f"{listener.fileno()};"},
        )
        async with trio.open_nursery() as nursery:
            # Raises in the nursery if nginx ends on its own, and ends nginx with the nursery.
            await nursery.start(start)
            listener.close()
            yield NginxFront(address, folder / "calls.log")
            nursery.cancel_scope.cancel()
