"""One policy for all that speaks HTTP to a judge: proxies, redirects, keys, and what cannot be reached."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from aiohttp import web

from rc_grpo.config import ClientConfig, SamplingConfig
from reward_service.asking import transport
from reward_service.asking.client import ChatClient
from reward_service.asking.transport import NoReplyError, Reply, Transport, UnreachableError, is_loopback
from reward_service.contract import ANSWER_SCHEMA
from reward_service.judge import JudgeSetupError, JudgeUnavailableError
from reward_service.serving.endpoint import Probe
from tests.unit.reward.chat_server import texts

QUICK = ClientConfig(request_deadline_s=2.0, tries=1, backoff_s=0.001, backoff_max_s=0.002)
VARIABLES = [name for kind in ("http", "https", "all", "no") for name in (f"{kind}_proxy", f"{kind}_proxy".upper())]
ELSEWHERE = "http://judge.example:8000/v1"
COMPLETION = texts("x").text or ""
ANSWERS = {"/v1/models": '{"data": [{"id": "judge"}]}', "/v1/chat/completions": COMPLETION, "/metrics": "a 1\n"}


class Server(ThreadingHTTPServer):
    """An HTTP server that answers a judge's paths, directly or as a proxy, and keeps what was asked of it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str | None]] = []
        self.redirect: str | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        body = ANSWERS.get(
            "/" + self.path.partition("://")[2].partition("/")[2] if "://" in self.path else self.path, ""
        )
        self.send_response(307 if self.server.redirect else 200)
        if self.server.redirect:
            self.send_header("Location", self.server.redirect)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    do_POST = do_CONNECT = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        return


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def ask_everything(url: str, key: str = "key") -> list[str]:
    """Ask by probe, for metrics, models and a completion; return which of them were answered."""

    async def run() -> list[str]:
        probe, client = Probe(2.0), ChatClient(url, key, "judge", QUICK)
        answered = []
        if await probe.answers(url):
            answered.append("health")
        if await probe.metrics(url):
            answered.append("metrics")
        with contextlib.suppress(JudgeUnavailableError):
            answered += ["models"] if await client.models() == ["judge"] else []
        messages = [{"role": "user", "content": "x"}]
        with contextlib.suppress(JudgeUnavailableError):
            texts = await client.complete(messages, SamplingConfig(), ANSWER_SCHEMA, count=1, seed=1)
            answered += ["chat"] if texts[0].text == "x" else []
        await probe.close()
        await client.close()
        return answered

    return asyncio.run(asyncio.wait_for(run(), 20))


ALL = ["health", "metrics", "models", "chat"]


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2", "0.0.0.0", "127.1", "LOCALHOST"])
def test_a_server_on_this_machine_is_never_asked_by_a_proxy(
    monkeypatch: pytest.MonkeyPatch, variable: str, host: str
) -> None:
    with serving() as proxy, serving() as server:
        monkeypatch.setenv(variable, proxy.url.removesuffix("/v1"))
        server_url = server.url.replace("127.0.0.1", host)
        # At 127.0.0.2 nobody listens.
        assert ask_everything(server_url) == ([] if host == "127.0.0.2" else ALL)
        assert proxy.asked == []


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_a_server_elsewhere_is_asked_by_the_proxy_for_all_there_is(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    with serving() as proxy:
        monkeypatch.setenv(variable, proxy.url.removesuffix("/v1"))
        assert ask_everything(ELSEWHERE) == ALL
        assert [path for path, _ in proxy.asked] == [
            f"http://judge.example:8000{path}" for path in ("/health", "/metrics", "/v1/models", "/v1/chat/completions")
        ]


@pytest.mark.parametrize("exempt", ["judge.example", ".example", "example", "*"])
def test_a_host_that_is_exempt_is_asked_directly_by_all(monkeypatch: pytest.MonkeyPatch, exempt: str) -> None:
    with serving() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        monkeypatch.setenv("NO_PROXY", exempt)
        assert ask_everything(ELSEWHERE) == []
        assert proxy.asked == []


def test_a_secure_server_elsewhere_is_asked_by_the_proxy_for_secure_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.removesuffix("/v1"))
        ask_everything("https://judge.example/v1")
        assert {path for path, _ in proxy.asked} == {"judge.example:443"}


@pytest.mark.parametrize("proxy", ["gopher://x:1", "socks5://127.0.0.1:1", "http://x:port"])
def test_a_proxy_that_cannot_be_used_is_a_wrong_setup(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("all_proxy", proxy)
    with pytest.raises(JudgeSetupError, match=r"^http://judge\.example.*proxy that .* cannot be used .*no_proxy$"):
        ask_everything(ELSEWHERE)
    with serving() as server:
        assert ask_everything(server.url) == ALL


def test_a_dead_proxy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match=r"connection refused \(by the environment's proxy"):
        send(ELSEWHERE)


def test_a_redirect_is_told_and_the_key_stays() -> None:
    with serving() as other, serving() as server:
        server.redirect = f"{other.url}/models?{'x' * 5000}"
        with pytest.raises(
            JudgeSetupError, match=r"answered 307: a redirect to http://127.*key is not sent on"
        ) as error:
            ask_everything(server.url)
        assert len(str(error.value)) < 600
        assert other.asked == []


@pytest.mark.parametrize(("key", "sent"), [("key", "Bearer key"), ("", None), ("a b", "Bearer a b")])
def test_the_key_goes_to_the_api_alone(key: str, sent: str | None) -> None:
    with serving() as server:
        ask_everything(server.url, key)
        keys = dict(server.asked)
    assert keys == {"/health": None, "/metrics": None, "/v1/models": sent, "/v1/chat/completions": sent}


@pytest.mark.parametrize("key", ["secret\n", " secret", "secr\u00e9t", "secr\x00t", "secret\ud83d"])
def test_a_key_that_no_header_holds_is_a_wrong_setup_that_does_not_show_it(key: str) -> None:
    with serving() as server, pytest.raises(JudgeSetupError, match="key cannot be sent") as error:
        ask_everything(server.url, key)
    assert "secr" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://127.9.9.9/v1", True),
        ("https://[::1]:8000/v1", True),
        ("http://[::ffff:127.0.0.1]/v1", True),
        ("http://localhost./v1", True),
        ("http://judge.localhost/v1", True),
        ("http://0.0.0.0:8000/v1", True),
        ("http://[::]:8000/v1", True),
        ("http://127.1/v1", True),
        ("http://0x7f000001/v1", True),
        ("http://user:pass@127.0.0.1/v1", True),
        ("http://10.0.0.1/v1", False),
        ("http://128.0.0.1/v1", False),
        ("http://localhost.example/v1", False),
        ("http://notlocalhost/v1", False),
        ("http://127.0.0.1.example/v1", False),
        ("http://judge@example/127.0.0.1", False),
        ("http://[2001:db8::1]/v1", False),
        ("http://[", False),
    ],
)
def test_what_points_to_this_machine(url: str, here: bool) -> None:
    assert is_loopback(url) is here


@pytest.mark.parametrize("host", ["XN--", "xn--\u00fc", "\ud83d", "a" * 70 + ".example", "\u2488com", "\x00"])
def test_a_host_that_is_no_name_is_elsewhere_and_cannot_be_reached(host: str) -> None:
    assert not is_loopback(f"http://{host}/v1")
    with pytest.raises(NoReplyError) as error:
        send(f"http://{host}/v1")
    str(error.value).encode()


def send(url: str, deadline: float = 2.0) -> Reply:
    async def run() -> Reply:
        transport = Transport(deadline)
        try:
            return await transport.send("GET", url)
        finally:
            await transport.close()

    return asyncio.run(asyncio.wait_for(run(), 20))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1:9/v1", "^connection refused$"),
        ("http://localhost:9/v1", "^connection refused$"),
        ("http://no-such-host.invalid/v1", "^unknown host$"),
        ("http://a..b/v1", "^unknown host$"),
        (f"http://{'a' * 70}/v1", "^unknown host$"),
        ("judge:8000/v1", "protocol"),
        ("ftp://judge/v1", "protocol"),
        ("http://judge:port/v1", "port"),
    ],
)
def test_why_nothing_is_to_be_reached_is_said_in_a_few_words(url: str, says: str) -> None:
    with pytest.raises(UnreachableError, match=says):
        send(url)


def test_a_plain_server_asked_for_tls_is_said_so() -> None:
    with serving() as server, pytest.raises(UnreachableError, match="no TLS connection"):
        send(server.url.replace("http:", "https:"))


def test_a_body_that_trickles_ends_at_the_deadline() -> None:
    async def run() -> None:
        async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                for _ in range(200):
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.02)

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        transport = Transport(0.2)
        with pytest.raises(NoReplyError, match=r"no answer within 0\.2 s"):
            await transport.send("GET", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        await transport.close()
        server.close()

    asyncio.run(asyncio.wait_for(run(), 5))


@pytest.mark.parametrize(
    ("body", "gist"),
    [
        ('{"error": {"message": "At most 1 image(s)", "code": 400}}', "At most 1 image(s)"),
        ('{"object": "error", "message": "older vLLM"}', "older vLLM"),
        ('{"error": "a text"}', "a text"),
        ('{"detail": "Not Found"}', "Not Found"),
        ('{"error": {"message": {"message": "deep"}}}', "deep"),
        ('{"error": null, "x": 1}', '{"error": null, "x": 1}'),
        ('{"error": {"message": "half \\ud83d \\u0000\\n\\u001b[31m"}}', "half \ufffd \ufffd \ufffd[31m"),
        ("<html>\n  <h1>Bad   Gateway</h1>", "<html> <h1>Bad Gateway</h1>"),
        ("", "an empty body"),
        (5000 * '{"error":', (34 * '{"error":')[:299] + "…"),
        ("x" * 10**6, "x" * 299 + "…"),
    ],
)
def test_what_a_server_says_is_one_line_clean_and_bounded(body: str, gist: str) -> None:
    assert Reply(400, body).gist == gist


def test_a_connection_that_was_idle_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the server may let go of it at that moment, and the request would be lost."""
    monkeypatch.setattr(transport, "IDLE_S", 0.2)
    assert transport.IDLE_S < 5.0  # when uvicorn's servers let go
    ports: list[int] = []

    async def reply(request: web.Request) -> web.Response:
        ports.append(request.transport.get_extra_info("peername")[1] if request.transport else 0)
        return web.Response(text="{}")

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/health", reply)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        sender = Transport(5.0)
        try:
            for pause in (0.0, 0.0, 0.5):
                await asyncio.sleep(pause)
                await sender.send("GET", f"http://127.0.0.1:{runner.addresses[0][1]}/health")
        finally:
            await sender.close()
            await runner.cleanup()

    asyncio.run(run())
    assert ports[0] == ports[1] != ports[2]
