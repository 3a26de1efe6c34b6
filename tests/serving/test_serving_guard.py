"""What a server refuses, and that it says so cleanly: keys, hosts, sizes, pictures, and what has no meaning here."""

from __future__ import annotations

import base64
import io
import struct
import sys
import zlib
from collections.abc import Iterator

import pytest
from PIL import Image
from starlette.testclient import TestClient

from astrea.model.loaded import LoadedModel
from astrea.serving.app import Server, application
from astrea.serving.errors import ApiError, clean
from astrea.serving.limits import Limits
from astrea.serving.pictures import file_of
from astrea.serving.settings import Settings
from serving_clients import asking, data_url

KEY = "a-long-key-for-tests-0123456789"
CHAT = "/v1/chat/completions"
PATHS = ("/", "/health", "/metrics", "/v1/models", "/openapi.json", "/nothing", CHAT)


@pytest.fixture(scope="module")
def locked(loaded: LoadedModel) -> Iterator[TestClient]:
    """A server that asks for a key, known as "here" alone, with small limits."""
    limits = Limits(
        body_bytes=200_000, pixels=100_000, pictures=2, choices=2, messages=4, tokens=8, picture_bytes=60_000
    )
    settings = Settings(name="tiny", key=KEY, hosts=frozenset(["here"]), limits=limits)
    with TestClient(application(Server(loaded, settings)), base_url="http://here") as running:
        yield running


def keyed(**more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEY}", **more}


def refused(response, status: int) -> str:
    """The message of a clean refusal."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert len(error["message"]) <= 400
    return error["message"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", f"Bearer {KEY}x", "Basic !!", f"Token {KEY[:-1]}"])
def test_no_route_answers_without_the_key(locked, path, header):
    for method in ("GET", "POST", "PUT"):
        answer = locked.request(method, path, headers={"Authorization": header} if header else {})
        assert KEY not in refused(answer, 401)
        assert answer.headers["www-authenticate"].startswith("Basic")


def test_the_key_opens_as_bearer_and_as_the_password_of_a_browser(locked):
    basic = base64.b64encode(f"anyone:{KEY}".encode()).decode()
    for header in (f"Bearer {KEY}", f"bearer  {KEY}", f"Basic {basic}"):
        assert locked.get("/v1/models", headers={"Authorization": header}).status_code == 200


def test_a_server_is_known_under_its_names_only(locked):
    assert refused(locked.get("/health", headers=keyed(Host="evil.example")), 421)
    assert locked.get("/health", headers=keyed(Host="HERE:8000")).status_code == 200


def test_every_response_forbids_to_be_framed_sniffed_or_kept(locked):
    for answer in (locked.get("/health"), locked.get("/health", headers=keyed())):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["cache-control"] == "no-store"


def test_a_large_body_is_refused_by_its_header_and_by_what_comes(locked):
    refused(locked.post(CHAT, content=b"x" * 200_001, headers=keyed()), 413)
    chunks = (b"x" * 1000 for _ in range(300))  # without a length in the header
    refused(locked.post(CHAT, content=chunks, headers=keyed()), 413)
    assert locked.get("/health", headers=keyed()).status_code == 200


BAD_BODIES = {
    "no JSON": (b"\xff\xfe{", 422),
    "deep": (b'{"messages":' + b"[" * 90_000, 422),
    "no messages": (b'{"messages": []}', 422),
    "role": (b'{"messages": [{"role": "tool", "content": "x"}]}', 422),
    "part": (b'{"messages": [{"role": "user", "content": [{"type": "video", "url": "x"}]}]}', 422),
    "temperature": (b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}', 422),
    "huge number": (b'{"messages": [{"role": "user", "content": "x"}], "seed": ' + b"9" * 6000 + b"}", 422),
    "half a character": (rb'{"messages": [{"role": "user", "content": "\ud800"}]}', 422),
    "tools": (b'{"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function"}]}', 422),
    "format": (b'{"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_object"}}', 422),
    "n": (b'{"messages": [{"role": "user", "content": "x"}], "n": 3}', 400),
    "stop": (b'{"messages": [{"role": "user", "content": "x"}], "stop": ["' + b"y" * 65 + b'"]}', 400),
    "empty question": (b'{"messages": [{"role": "user", "content": "  "}]}', 400),
    "long": (b'{"messages": [{"role": "user", "content": "' + b"word " * 5000 + b'"}]}', 400),
    "many": (b'{"messages": [' + b",".join([b'{"role": "user", "content": "x"}'] * 5) + b"]}", 400),
    "expert": (b'{"messages": [{"role": "user", "content": "x"}], "astrea": {"without": ["nobody"]}}', 400),
}


@pytest.mark.parametrize("what", BAD_BODIES)
def test_a_bad_body_is_a_clean_refusal(locked, what):
    body, status = BAD_BODIES[what]
    answer = locked.post(CHAT, content=body, headers=keyed(**{"Content-Type": "application/json"}))
    assert answer.status_code in (status, 400), answer.text  # a body that is no JSON may be either
    refused(answer, answer.status_code)


def bomb(side: int) -> bytes:
    """A PNG of a few hundred bytes whose header promises side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


def png(*size: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, "PNG")
    return file.getvalue()


BAD_FILES = {
    "bomb": bomb(30_000),
    "too many pixels": png(400, 300),
    "too narrow": png(300, 1),
    "cut": png(64, 64)[:60],
    "head only": b"\x89PNG\r\n\x1a\n",
    "wrong magic": b"GIF89a" + bytes(100),
    "script": b"<svg onload=alert(1)>",
    "polyglot": b"\xff\xd8\xff" + b"%PDF-1.7" + bytes(200),
    "nothing": b"",
}


@pytest.mark.parametrize("what", BAD_FILES)
def test_a_bad_picture_is_a_clean_refusal_that_does_not_quote_it(locked, what):
    encoded = base64.b64encode(BAD_FILES[what]).decode()
    body = {"messages": asking("what is this?", f"data:image/png;base64,{encoded}")}
    message = refused(locked.post(CHAT, json=body, headers=keyed()), 400)
    assert not encoded or encoded[:12] not in message


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1:1/x.png", "https://example.org/x.png", "file:///etc/passwd", "/etc/passwd", "ftp://x/y"),
        *(
            "data:image/png,abc",
            "data:text/html;base64,PGI+",
            "data:image/png;base64,####",
            "gopher://x",
            "",
            "\\\\host\\a",
        ),
        "DATA:image/png;charset=x;base64,AAAA",
    ],
)
def test_nothing_but_a_data_url_is_taken_and_nothing_is_opened_or_asked(locked, url):
    seen: list[tuple[str, object]] = []
    watching = True

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event in ("open", "socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.listdir"):
            seen.append((event, arguments[0]))

    sys.addaudithook(hook)  # cannot be taken away again, so it is told to be quiet
    message = refused(locked.post(CHAT, json={"messages": asking("hm?", url)}, headers=keyed()), 400)
    watching = False
    assert seen == []
    assert len(url) < 6 or url not in message


def test_too_many_pictures_and_a_file_that_is_too_large(locked, pictures):
    three = [data_url(picture) for picture in pictures[:3]]
    refused(locked.post(CHAT, json={"messages": asking("hm?", *three)}, headers=keyed()), 400)
    with pytest.raises(ApiError) as large:
        file_of("data:image/png;base64," + base64.b64encode(bytes(1001)).decode(), 1000)
    assert large.value.status == 413


def test_the_server_is_alive_and_right_after_all_of_it(locked, pictures):
    body = {"messages": asking("what colour is the cat?", data_url(pictures[0])), "astrea": {"token_ids": True}}
    first, again = (locked.post(CHAT, json=body, headers=keyed()).json() for _ in range(2))
    assert first["astrea"] == again["astrea"]
    assert len(first["astrea"]["token_ids"][0]) >= 1


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_pictures_of_each_form_are_read_as_the_library_reads_them(client, loaded, pictures, form):
    """By a process that may neither open files nor connections."""
    url = data_url(pictures[0].resize((100, 75)), form)
    found = client.post(CHAT, json={"messages": asking("what is this?", url), "max_tokens": 6}).json()
    data = file_of(url, 1 << 20)
    assert found["choices"][0]["message"]["content"] == loaded.ask(data, "what is this?", max_new_tokens=6).answer


def test_messages_hold_nothing_long_encoded_or_unwritable():
    told = clean("bad \ud800 " + "QUJD" * 20 + " end " + "long word " * 100)
    assert "QUJDQUJD" not in told
    assert len(told) == 400
    told.encode()
