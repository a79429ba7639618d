"""Stand in for a reasoning model on loopback: it adds at any effort, and multiplies only at a high one.

Run it by `python examples/efforts/model.py`; it answers at http://127.0.0.1:8765/v1. `efforts.py` starts it by itself.
"""

from __future__ import annotations

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 8765
#: The output tokens of an answer, with those of the thinking before it.
TOKENS = {"low": 40, "high": 800}


class Model(BaseHTTPRequestHandler):
    """Answers chat completions."""

    def do_POST(self) -> None:
        """Answer the last message, at the effort that the request asks for."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        effort = body.get("reasoning_effort", "low")
        said = {"role": "assistant", "content": answer_of(body["messages"][-1]["content"], effort)}
        usage = {"prompt_tokens": 20, "completion_tokens": TOKENS[effort], "total_tokens": 20 + TOKENS[effort]}
        choice = {"index": 0, "message": said, "finish_reason": "stop"}
        head = {"id": "c", "object": "chat.completion", "created": 1, "model": body["model"]}
        raw = json.dumps(head | {"choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args: object) -> None:
        """Say nothing of requests."""


def answer_of(question: str, effort: str) -> str:
    """Return the number that the question asks for, or a wrong one if the effort is too low for it."""
    one, other = map(int, re.findall(r"\d+", question))
    if "plus" in question:
        return str(one + other)
    return str(one * other if effort == "high" else one * other + 10)


def serving() -> ThreadingHTTPServer:
    """Return a server that listens on the port of `policy.yaml`; its caller runs it."""
    try:
        return ThreadingHTTPServer(("127.0.0.1", PORT), Model)
    except OSError as error:
        sys.exit(f"The model cannot listen on port {PORT}: {error.strerror}. End the program that has it first.")


if __name__ == "__main__":
    serving().serve_forever()
