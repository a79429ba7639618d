"""The newest official Python SDK, in an environment of its own because LiteLLM wants an older one: asks an upstream
directly and through the door, in turns, what standard input says, and prints both answers. Imports nothing of ours.
"""

import json
import sys

import openai

task = json.load(sys.stdin)
direct, door = (openai.OpenAI(api_key="sk-caller", base_url=url, max_retries=0) for url in task["urls"])


def ask(client: openai.OpenAI, fields: dict) -> list:
    """Return the answer, or its chunks, as plain values."""
    answer = client.chat.completions.create(**fields)
    return [one.to_dict(mode="json") for one in (answer if fields.get("stream") else [answer])]


answers = []
for fields in task["suite"]:
    expected = ask(direct, fields | {"model": "up-none"})
    answers.append([expected, ask(door, fields | {"model": "elle/test"})])
try:
    ask(door, {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]})
    error = None
except openai.NotFoundError as refused:
    error = refused.code
models = [model.id for model in door.models.list()]
json.dump({"version": openai.__version__, "answers": answers, "error": error, "models": models}, sys.stdout)
