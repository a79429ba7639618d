"""Put the service behind a program that uses OpenAI's SDK: another base URL, another model, and nothing else.

Start `elle serve --http 8080` in another terminal, then run `python examples/journeys/openai_program.py [URL]`.
Needs `pip install openai`.
"""

from __future__ import annotations

import sys

try:
    import openai
except ModuleNotFoundError:
    sys.exit("OpenAI's SDK is missing: pip install openai")


def main(url: str) -> None:
    """Ask for an answer, see who gave it, stream one, and pin a model."""
    # The two changes of your program: `base_url` here, and `model` below.
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any") as client:
        ask = client.chat.completions.create
        answer = ask(model="elle/default", messages=[{"role": "user", "content": "What is the capital of France?"}])
        print(answer.choices[0].message.content)
        # The field `elle` is the decision record in short; a program that does not know it passes it over.
        print("Chosen:", answer.elle["candidate"], "because", answer.elle["reason"])

        proof = [{"role": "user", "content": "Let G be a finite group of odd order. Show that it is solvable."}]
        with ask(model="elle/default", messages=proof, stream=True) as stream:
            print("Streamed:", "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices))

        # How to undo it for one request: name a candidate, and nothing is judged.
        pinned = ask(model="frontier", messages=[{"role": "user", "content": "Hello"}])
        print("Pinned:", pinned.elle["candidate"], "because", pinned.elle["reason"])


if __name__ == "__main__":
    address = (sys.argv[1:] or ["http://localhost:8080"])[0]
    try:
        main(address)
    except openai.APIError as error:
        sys.exit(f"{address}: {error} Start a service by `elle serve --http 8080`, or give the URL of one.")
