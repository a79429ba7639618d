"""Make cases: one request through one door, as a JSON object that can be stored, sent again and made smaller.

`{"door": "grpc", "method": PATH, "metadata": [[key, value]], "messages": [tree]}` (several messages where the method is
a stream of requests) or `{"door": "http", "method", "target", "headers", "body"}`, bytes as text of one character each.
`framing` is `chunked` or a content length that is wrong. A case with `answer` brings along what the upstream says
to the request whose `user` it names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tests.fuzz import answers, apis, chats, protobuf
from tests.fuzz.protobuf import Tree, string
from tests.fuzz.values import POLICIES, Values, to_json

Case = dict[str, Any]

SERVICE = "/elle.router.v1.RouterService/"
PROCESS = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
HEALTH = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

#: Methods to which requests come as a stream.
STREAMS_IN = frozenset({PROCESS, REFLECTION})

#: How often each kind of case is drawn.
_WEIGHTS = {
    "route": 30,
    "http": 30,
    "ext_proc": 16,
    "batch": 6,
    "complete": 6,
    "stream": 4,
    "policy": 4,
    "others": 4,
    "answer": 12,
    "messages": 16,
    "questions": 10,
    "message answer": 14,
}

_HEADERS = (
    *("x-session-id", "session-id", "x-elle-session-id", "authorization", "x-api-key", "x-elle-candidate"),
    *("x-elle-timeout-s", "content-encoding", "accept", "x-elle-error", "x-request-id", "te", "expect"),
    *("anthropic-beta", "anthropic-version", "x-elle-task", "x-elle-scores"),
)


#: The paths of the other APIs. What is asked stands in another field there, which `chats.body` draws now and then.
_OTHER_APIS = (
    *("/v1/responses", "/v1/messages", "/v1/completions", "/v1/embeddings", "/openai/deployments/large/responses"),
    "/v1/messages/count_tokens",
)

#: Content lengths that are none: a service that believed one would wait for the rest.
_LENGTHS = ("-1", "+1", "1_0", "0x1", "9" * 20, "9" * 5000, "1, 1", "1.0", "\xb2", "", " ")


def draw(seed: int) -> Case:
    """Return the random case of this number."""
    v = Values(seed)
    kind = v.random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
    return _MAKERS[kind](v)


def _grpc(v: Values, method: str, *messages: Tree) -> Case:
    metadata = [[v.random.choice(_HEADERS), _printable(v.text())[:1500]] for _ in range(v.one_of(0, 0, 0, 1, 2))]
    # grpc and HTTP/2 have rules of their own for these.
    metadata = [pair for pair in metadata if pair[0] not in {"te", "content-encoding", "expect"} and pair[1]]
    if v.chance(0.05):
        metadata.append(["x-session-id-bin", v.text()[:200]])
    return {"door": "grpc", "method": method, "metadata": metadata, "messages": list(messages)}


def _printable(text: str) -> str:
    return "".join(one for one in text if " " <= one <= "~").strip()


def _others(v: Values) -> Case:
    method = v.one_of(HEALTH, REFLECTION, SERVICE + "Nothing", SERVICE + "route")
    tree = protobuf.mutated(v, [string(v.one_of(1, 3, 4, 6, 7), v.text())] if v.chance(0.8) else [])
    return _grpc(v, method, tree)


def _http(v: Values, target: str = "", make: Callable[[Values], Any] = chats.body) -> Case:
    target = target or ("/v1/chat/completions" if v.chance(0.5) else v.one_of(*_OTHER_APIS))
    method = "POST"
    if v.chance(0.12):
        target = v.one_of("/v1/models", "/v1/models/" + _path(v), "/healthz", "/" + _path(v), target + "/", "/v1", "*")
        method = v.one_of("GET", "GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "BREW")
    if v.chance(0.05):
        target += "?" + _path(v)
    headers = [["content-type", v.usually(lambda: "application/json")]]
    for _ in range(v.one_of(0, 0, 0, 1, 2)):
        name = v.random.choice(_HEADERS)
        headers.append([name, v.one_of("100-continue", "identity", "gzip") if name in {"te", "expect"} else _line(v)])
    headers = [[name, value if isinstance(value, str) else to_json(value)[:200]] for name, value in headers]
    headers = [[name, _sendable(value)] for name, value in headers]
    case = {"door": "http", "method": method, "target": target, "headers": headers, "body": _json(v, make)}
    if v.chance(0.1):
        case["framing"] = "chunked" if v.chance(0.5) else v.random.choice(_LENGTHS)
    return case


def _line(v: Values) -> str:
    return v.one_of(v.text()[:300], v.one_of("20", "1e3", "nan", "-1", "1_0", "1e308", "5.", "infinity", "0x10"))


def _sendable(value: str) -> str:
    # Anything but the end of a line, which would be another header; control characters stay.
    return "".join(one for one in value.encode(errors="surrogatepass").decode("latin-1") if one not in "\r\n")


def _path(v: Values) -> str:
    raw = v.one_of(v.text()[:2000], *POLICIES, *_HEADERS[:2], "elle/main", "%00%ff", "../../etc/passwd", "a//b")
    return "".join(one if "!" <= one <= "~" else f"%{ord(one) % 256:02x}" for one in raw)


def _json(v: Values, make: Callable[[Values], Any] = chats.body) -> str:
    """Return a body, or something like one, as bytes of one character each."""
    value = v.usually(lambda: make(v))
    text = to_json(value)
    if v.chance(0.05):
        text = _damaged(v, text)
    if v.chance(0.05):
        # Not escaped: UTF-8 as most clients write it, with half surrogates as no UTF-8 has them.
        text = text.replace("\\ud800", "\ud800").replace("\\u4f60", "\u4f60")
    return text.encode(errors="surrogatepass").decode("latin-1")


def _damaged(v: Values, text: str) -> str:
    at = v.random.randrange(len(text) + 1)
    return v.one_of(
        text[:at],
        text[:at] + v.one_of("\x00", "\xff", "}", "]", '"', ",", "\\", "\ufeff", "1e999", " ") + text[at:],
        text + text,
        "\ufeff" + text,
        text[:-1] + ',"model":"small"}',
        "  " + text + "\n\n",
    )


def _ext_proc(v: Values) -> Case:
    pairs = [[":method", v.usually(lambda: "POST")], [":path", v.usually(lambda: "/v1/chat/completions")]]
    pairs += [[v.random.choice(_HEADERS), v.text()[:500]] for _ in range(v.one_of(0, 0, 1, 2))]
    headers = [[1, "m", [string(1, key), string(v.one_of(2, 3, 3), value)]] for key, value in pairs]
    ends = [[3, "v", 1]] if v.chance(0.03) else []
    first = [[2, "m", [[1, "m", headers], *ends]]]
    body = [[4, "m", [[1, "s", _json(v)], [2, "v", 1]]]]
    messages = [first, body]
    if v.chance(0.1):
        later = [[v.one_of(3, 5, 6, 7), "m", []], *([] if v.chance(0.5) else [[v.one_of(1, 9), "v", 1]])]
        messages.insert(v.random.randrange(3), later)
    if v.chance(0.05):
        v.random.shuffle(messages)
    return _grpc(v, PROCESS, *(protobuf.mutated(v, message) if v.chance(0.2) else message for message in messages))


def _answer(v: Values) -> Case:
    """Return a good request whose upstream answers as the case says."""
    stream, policy = v.chance(0.5), v.one_of("odd", "translated")
    answer = answers.draw(v, stream=stream)
    user = f"answer-{v.random.getrandbits(64):x}"
    if v.chance(0.5):
        fields = {
            "model": f"elle/{policy}",
            "messages": [{"role": "user", "content": "x"}],
            "stream": stream,
            "user": user,
        }
        target = v.one_of("/v1/chat/completions", *_OTHER_APIS[:2])
        if target == "/v1/responses":
            fields["input"] = fields.pop("messages")
        case = {"door": "http", "method": "POST", "target": target, "body": to_json(fields)}
        return case | {"headers": [["content-type", "application/json"]], "answer": answer, "user": user}
    tree = [string(2, "x"), [3, "m", [string(1, policy)]], [5, "m", protobuf.struct_tree({"user": user})]]
    method = SERVICE + ("StreamComplete" if stream else "Complete")
    # Without metadata, by which a caller could be at fault.
    return _grpc(v, method, [[1, "m", tree]]) | {"metadata": [], "answer": answer, "user": user}


def _messages(v: Values) -> Case:
    return _http(v, v.one_of("/v1/messages", "/v1/messages", "/v1/messages/count_tokens"), apis.message_body)


def _questions(v: Values) -> Case:
    path = v.one_of("/v1/systemone", "/v1/decisions")
    return _http(v, path, lambda v: apis.question_body(v, path))


def _message_answer(v: Values) -> Case:
    """Return a good request of Anthropic's API whose upstream answers as the case says."""
    stream, policy = v.chance(0.5), v.one_of("claude", "claude", "odd", "translated")
    answer = (apis.draw_message if policy == "claude" else answers.draw)(v, stream=stream)
    user = f"answer-{v.random.getrandbits(64):x}"
    said = [{"role": "user", "content": "x"}]
    fields = {"model": f"elle/{policy}", "max_tokens": 9, "messages": said, "metadata": {"user_id": user}}
    counts = policy == "claude" and v.chance(0.15)
    target = "/v1/messages/count_tokens" if counts else "/v1/messages"
    case = {"door": "http", "method": "POST", "target": target, "body": to_json(fields | {"stream": stream})}
    return case | {"headers": [["content-type", "application/json"]], "answer": answer, "user": user}


_MAKERS: dict[str, Callable[[Values], Case]] = {
    "route": lambda v: _grpc(v, SERVICE + "Route", protobuf.route(v)),
    "batch": lambda v: _grpc(v, SERVICE + "BatchRoute", protobuf.batch(v)),
    "complete": lambda v: _grpc(v, SERVICE + "Complete", [[1, "m", protobuf.route(v)]]),
    "stream": lambda v: _grpc(v, SERVICE + "StreamComplete", [[1, "m", protobuf.route(v)]]),
    "policy": lambda v: _grpc(v, SERVICE + "GetPolicy", protobuf.mutated(v, [string(1, v.text())])),
    "http": _http,
    "ext_proc": _ext_proc,
    "others": _others,
    "answer": _answer,
    "messages": _messages,
    "questions": _questions,
    "message answer": _message_answer,
}


def smaller(value: Any) -> Iterator[Any]:
    """Yield versions of a case, or of a part of one, with something taken out, big pieces first."""
    if isinstance(value, dict):
        for key, item in value.items():
            # Of a case that brings its answer along only that matters.
            if key == "answer" or (
                key not in {"door", "method", "user", "status", "type", "framing"} and "answer" not in value
            ):
                yield from ({**value, key: less} for less in smaller(item))
    elif isinstance(value, list) and value and not isinstance(value[0], list):
        # A field or a header: its number or name stays, and so does a number.
        if value[-2] not in {"d", "v"}:
            yield from ([*value[:-1], less] for less in smaller(value[-1]))
    elif isinstance(value, str | list):
        yield from _cut(value)
        if isinstance(value, list):
            for at, item in enumerate(value):
                yield from ([*value[:at], less, *value[at + 1 :]] for less in smaller(item))


def _cut(value: str | list[Any]) -> Iterator[Any]:
    size = len(value)
    while size:
        for at in range(0, len(value), size):
            yield value[:at] + value[at + size :]
        size //= 2
