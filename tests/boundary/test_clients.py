"""Clients are used without the retries that they make on their own, and say how many connections they may open."""

from __future__ import annotations

import functools
import gc
import importlib
import weakref
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from trio_sched._clients import ClientRetries, ConnectionLimit, HiddenRetriesError, RetryFreeClients, connection_limit

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
OPENAI_ANSWER: dict[str, object] = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}],
}


def http_of(sdk: ModuleType) -> Any:
    """The HTTP library that an installed SDK speaks: newer ones moved to its successor."""
    base: Any = importlib.import_module(f"{sdk.__name__}._base_client")
    return cast("ModuleType", getattr(base, "httpx2", httpx))


class Provider:
    """Answers through a mock transport, and counts what reaches it."""

    def __init__(self, http: Any, status: int = 200) -> None:
        self.http = http
        self.status = status
        self.requests = 0

    def __call__(self, request: Any) -> Any:
        self.requests += 1
        body = OPENAI_ANSWER if self.status == 200 else {"error": {"message": "no", "type": "server_error"}}
        return self.http.Response(self.status, json=body, headers={"retry-after-ms": "1"}, request=request)

    def openai(self, sdk: ModuleType, **options: Any) -> Any:
        http_client = self.http.AsyncClient(transport=self.http.MockTransport(self))
        return sdk.AsyncOpenAI(api_key="none", base_url="http://provider.test/v1", http_client=http_client, **options)


@pytest.fixture
def openai() -> ModuleType:
    return cast("ModuleType", pytest.importorskip("openai"))


def test_a_client_with_retries_is_copied_once_without_them(openai: ModuleType) -> None:
    client = openai.AsyncOpenAI(api_key="none", max_retries=5)
    clients = RetryFreeClients()
    copy = clients.use(client)
    assert type(copy) is type(client)
    assert copy.max_retries == 0
    assert client.max_retries == 5
    assert clients.use(client) is copy
    assert clients.records == (ClientRetries("openai.AsyncOpenAI", 5, "copied_without"),)


def test_a_client_without_retries_is_used_as_it_is(openai: ModuleType) -> None:
    client = openai.AsyncOpenAI(api_key="none", max_retries=0)
    clients = RetryFreeClients()
    create = client.chat.completions.create
    assert clients.use(client) is client
    assert clients.redirect(create) is create
    assert clients.records == (ClientRetries("openai.AsyncOpenAI", 0, "already_off"),)


def test_different_findings_are_recorded_once_each(openai: ModuleType) -> None:
    clients = RetryFreeClients()
    made = [openai.AsyncOpenAI(api_key="none", max_retries=retries) for retries in (2, 2, 0)]
    for client in made:
        clients.use(client)
    assert [(record.max_retries, record.handling) for record in clients.records] == [
        (2, "copied_without"),
        (0, "already_off"),
    ]


PATHS: list[Callable[[Any], Any]] = [
    lambda client: client.chat.completions.create,
    lambda client: client.embeddings.create,
    lambda client: client.responses.create,
    lambda client: client.post,
    lambda client: client.chat.completions.with_raw_response.create,
    lambda client: client.chat.completions.with_streaming_response.create,
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ["AsyncOpenAI", "OpenAI"])
def test_a_method_of_the_original_becomes_the_same_method_of_the_copy(
    openai: ModuleType, kind: str, path: Callable[[Any], Any]
) -> None:
    client = getattr(openai, kind)(api_key="none")
    clients = RetryFreeClients()
    copy = clients.use(client)
    redirected: Any = clients.redirect(path(client))
    method = getattr(redirected, "__self__", None) or redirected.__wrapped__.__self__
    assert getattr(method, "_client", None) is copy or method is copy
    assert redirected.__code__ is path(client).__code__
    assert redirected.__name__ == path(client).__name__


async def test_no_hidden_request_reaches_the_provider(openai: ModuleType) -> None:
    provider = Provider(http_of(openai), status=500)
    client = provider.openai(openai, max_retries=2)
    clients = RetryFreeClients()
    with pytest.raises(openai.InternalServerError):
        await clients.redirect(client.chat.completions.create)(**CHAT)
    assert provider.requests == 1
    raw: Any = clients.redirect(client.chat.completions.with_raw_response.create)
    with pytest.raises(openai.InternalServerError):
        await raw(**CHAT)
    assert provider.requests == 2
    streaming: Any = clients.redirect(client.chat.completions.with_streaming_response.create)
    with pytest.raises(openai.InternalServerError):
        async with streaming(**CHAT):
            raise AssertionError("unreachable")
    assert provider.requests == 3
    prepared = functools.partial(client.chat.completions.create, model="m")
    with pytest.raises(openai.InternalServerError):
        await clients.redirect(prepared)(messages=CHAT["messages"])
    assert provider.requests == 4


async def test_the_redirected_method_answers_under_trio(openai: ModuleType) -> None:
    client = Provider(http_of(openai)).openai(openai)
    reply = await RetryFreeClients().redirect(client.chat.completions.create)(**CHAT)
    assert reply.choices[0].message.content == "hello"


async def test_the_anthropic_sdk() -> None:
    anthropic = pytest.importorskip("anthropic")
    http = http_of(anthropic)
    provider = Provider(http, status=529)
    http_client = http.AsyncClient(transport=http.MockTransport(provider))
    client = anthropic.AsyncAnthropic(api_key="none", base_url="http://provider.test", http_client=http_client)
    clients = RetryFreeClients()
    functions = [
        client.messages.create,
        client.beta.messages.create,
        client.messages.with_raw_response.create,
        functools.partial(client.messages.create, max_tokens=5),
    ]
    for number, function in enumerate(functions, 1):
        with pytest.raises(anthropic.InternalServerError):
            await clients.redirect(function)(**{"max_tokens": 5, **CHAT})
        assert provider.requests == number
    assert clients.records == (ClientRetries("anthropic.AsyncAnthropic", 2, "copied_without"),)


def test_a_subclass_of_a_client(openai: ModuleType) -> None:
    client: Any = type("OwnClient", (openai.AsyncOpenAI,), {"__module__": "own.clients"})(api_key="none")
    clients = RetryFreeClients()
    redirected: Any = clients.redirect(client.chat.completions.create)
    assert redirected.__self__._client is clients.use(client)
    assert clients.records[0].client == "own.OwnClient"


async def own_function() -> None:
    """Not of any SDK."""


class Judge:
    """A user's own wrapper."""

    def __init__(self, client: object) -> None:
        self._client = client

    async def ask(self) -> None:
        """Call the client."""


def test_what_is_not_recognised_is_called_as_it_is(openai: ModuleType) -> None:
    client = openai.AsyncOpenAI(api_key="none")
    clients = RetryFreeClients()

    @functools.wraps(client.chat.completions.create)
    async def traced() -> None: ...

    judge = Judge(client)
    partial = functools.partial(own_function)
    functions: list[Callable[..., Any]] = [own_function, lambda: None, traced, judge.ask, Judge, partial, print]
    for function in functions:
        assert clients.redirect(function) is function
    assert clients.redirect(judge.ask) == judge.ask


class Stubborn:
    """Retries and cannot be copied."""

    max_retries = 3

    async def ask(self) -> None:
        """Call the provider, several times."""


class Deceptive(Stubborn):
    def with_options(self, *, max_retries: int) -> Deceptive:
        """Not what it says."""
        assert max_retries == 0
        return self


@pytest.mark.parametrize("kind", [Stubborn, Deceptive])
def test_a_client_that_cannot_be_copied_is_refused(kind: type[Stubborn]) -> None:
    clients = RetryFreeClients()
    for use in (lambda: clients.use(kind()), lambda: clients.redirect(kind().ask)):
        with pytest.raises(HiddenRetriesError) as caught:
            use()
        assert str(caught.value) == (
            f"test_clients.{kind.__name__} retries on its own (max_retries=3), which would send requests "
            "that were never admitted; make the client with max_retries=0"
        )
        assert (caught.value.client, caught.value.found) == (f"test_clients.{kind.__name__}", "max_retries=3")
        assert caught.value.remedy == "make the client with max_retries=0"
    assert clients.records == ()


def test_a_changed_method_is_refused_not_bypassed(openai: ModuleType) -> None:
    client = openai.AsyncOpenAI(api_key="none")
    completions = client.chat.completions

    async def traced(_self: object) -> None: ...

    completions.create = traced.__get__(completions)
    with pytest.raises(HiddenRetriesError, match=r"through its changed method traced") as caught:
        RetryFreeClients().redirect(completions.create)
    assert caught.value.remedy == "pass a method of client.with_options(max_retries=0)"


class Sdk:
    """A client whose parts are not made from the client alone."""

    def __init__(self, max_retries: int = 2) -> None:
        self.max_retries = max_retries

    def with_options(self, *, max_retries: int) -> Sdk:
        """A copy."""
        return Sdk(max_retries)


class PartOfTwo:
    def __init__(self, client: Sdk, region: str) -> None:
        self._client = client
        self.region = region

    async def ask(self) -> None:
        """Call the provider."""


class Detached:
    def __init__(self, client: Sdk) -> None:
        self._client = client if client.max_retries else None

    async def ask(self) -> None:
        """Call the provider."""


def test_a_part_that_cannot_be_made_again_is_refused() -> None:
    for part in (PartOfTwo(Sdk(), "eu"), Detached(Sdk())):
        with pytest.raises(
            HiddenRetriesError, match=rf"^test_clients\.{type(part).__name__} retries on its own \(through"
        ):
            RetryFreeClients().redirect(part.ask)


@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_the_connection_retries_of_a_transport_are_refused(name: str) -> None:
    http = pytest.importorskip(name)
    transport = http.AsyncHTTPTransport(retries=2)
    for client in (
        http.AsyncClient(transport=transport),
        http.AsyncClient(mounts={"https://": transport}),
        http.Client(transport=http.HTTPTransport(retries=2)),
    ):
        with pytest.raises(HiddenRetriesError, match=r"retries=2 of its (Async)?HTTPTransport") as caught:
            RetryFreeClients().redirect(client.post)
        assert caught.value.remedy.endswith("HTTPTransport without retries")
    plain = http.AsyncClient()
    clients = RetryFreeClients()
    assert clients.redirect(plain.post) == plain.post
    assert clients.records == (ClientRetries(f"{name}.AsyncClient", None, "none_found"),)


def test_connection_retries_within_an_sdk_client_are_refused(openai: ModuleType) -> None:
    http = http_of(openai)
    http_client = http.AsyncClient(transport=http.AsyncHTTPTransport(retries=1))
    with pytest.raises(HiddenRetriesError, match="retries=1 of its AsyncHTTPTransport"):
        RetryFreeClients().use(openai.AsyncOpenAI(api_key="none", max_retries=0, http_client=http_client))


class Adapter:
    def __init__(self, total: object) -> None:
        self.max_retries = SimpleNamespace(total=total)


class Session:
    """Shaped as a session of requests."""

    def __init__(self, total: object) -> None:
        self.adapters = {"https://": Adapter(total)}

    def post(self) -> None:
        """Call the provider."""


def test_a_session_of_requests() -> None:
    with pytest.raises(HiddenRetriesError, match="retries=3 of its Adapter"):
        RetryFreeClients().redirect(Session(3).post)
    for total in (0, False, None):
        session = Session(total)
        assert RetryFreeClients().redirect(session.post) == session.post


def test_a_client_that_is_gone_is_forgotten() -> None:
    clients = RetryFreeClients()
    client = Sdk()
    copy = weakref.ref(clients.use(client))
    unchanged = Sdk(max_retries=0)
    original = weakref.ref(clients.use(unchanged))
    gc.collect()
    assert copy() is not None
    del client, unchanged
    gc.collect()
    assert copy() is None
    assert original() is None


class Unwatchable:
    """Cannot be referred to weakly."""

    __slots__ = ("max_retries",)

    def __init__(self, max_retries: int) -> None:
        self.max_retries = max_retries

    def with_options(self, *, max_retries: int) -> Unwatchable:
        """A copy."""
        return Unwatchable(max_retries)


def test_a_client_that_cannot_be_watched_is_copied_each_time() -> None:
    client = Unwatchable(2)
    clients = RetryFreeClients()
    assert [clients.use(client).max_retries, clients.use(client).max_retries] == [0, 0]
    assert clients.use(client) is not clients.use(client)


def http(connections: int | None) -> httpx.AsyncClient:
    return httpx.AsyncClient(limits=httpx.Limits(max_connections=connections))


@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
def test_an_sdk_client_has_the_limit_of_its_http_client(sdk: str) -> None:
    package: Any = pytest.importorskip(sdk)
    kind: Any = getattr(package, {"openai": "AsyncOpenAI", "anthropic": "AsyncAnthropic"}[sdk])
    client = kind(api_key="none")
    default = package.DEFAULT_CONNECTION_LIMITS.max_connections
    assert connection_limit([client]) == ConnectionLimit(default)
    # The copy without retries shares the pool of its original.
    assert connection_limit([client, client.with_options(max_retries=0)]) == ConnectionLimit(default)


def test_httpx_alone_shows_its_limit_and_two_of_them_add_up() -> None:
    first, second = http(7), http(5)
    assert connection_limit([first]) == ConnectionLimit(7)
    assert connection_limit([first, second]) == ConnectionLimit(12)
    assert connection_limit([first, first]) == ConnectionLimit(7)


def test_of_several_transports_the_smallest_counts() -> None:
    small = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=3))
    client = httpx.AsyncClient(
        limits=httpx.Limits(max_connections=9), mounts={"https://small.test": small, "https://any.test": None}
    )
    assert connection_limit([client]) == ConnectionLimit(3)


@pytest.mark.parametrize(
    ("clients", "reason"),
    [
        ([None], "the model was declared without its client"),
        ([http(3), None], "the model was declared without its client"),
        ([object()], "a client of type object does not say how many connections it opens"),
        ([http(None)], "a client of type AsyncClient sets no limit"),
        ([http(3), http(None)], "a client of type AsyncClient sets no limit"),
        (
            [httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200)))],
            "a client of type AsyncClient does not say how many connections it opens",
        ),
    ],
    ids=["none given", "one of two given", "unknown", "unlimited", "one unlimited", "a transport of one's own"],
)
def test_what_cannot_be_known_says_why(clients: list[object], reason: str) -> None:
    assert connection_limit(clients) == ConnectionLimit(None, reason, sets_none=reason.endswith("sets no limit"))
