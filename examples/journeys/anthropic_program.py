"""Put the service behind a program that uses Anthropic's SDK: another base URL, another model, and nothing else.

Start `elle serve --http 8080` in another terminal, then run `python examples/journeys/anthropic_program.py [URL]`.
Needs `pip install anthropic`.
"""

from __future__ import annotations

import sys

try:
    import anthropic
except ModuleNotFoundError:
    sys.exit("Anthropic's SDK is missing: pip install anthropic")


def main(url: str) -> None:
    """Ask for an answer, see who gave it, and stream one."""
    # The two changes of your program: `base_url` here, and `model` below. A name without a slash suits every client.
    with anthropic.Anthropic(base_url=url, api_key="any") as client:
        question = [{"role": "user", "content": "What is the capital of France?"}]
        message = client.messages.create(model="elle-default", max_tokens=300, messages=question)
        print(message.content[0].text)
        print("Chosen:", message.elle["candidate"], "because", message.elle["reason"])

        proof = [{"role": "user", "content": "Let G be a finite group of odd order. Show that it is solvable."}]
        with client.messages.stream(model="elle-default", max_tokens=300, messages=proof) as stream:
            print("Streamed:", "".join(stream.text_stream))


if __name__ == "__main__":
    address = (sys.argv[1:] or ["http://localhost:8080"])[0]
    try:
        main(address)
    except anthropic.APIError as error:
        sys.exit(f"{address}: {error} Start a service by `elle serve --http 8080`, or give the URL of one.")
