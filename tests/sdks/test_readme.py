"""Every line of the README's table of SDKs makes what it says, and the README's versions are those that are tested."""

from __future__ import annotations

import inspect
import re
import runpy
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from bifrost_core import sdks

World: TypeAlias = Any
Ask: TypeAlias = Callable[[Any], Awaitable[str] | str]

FOLDER = Path(__file__).parent
README = (FOLDER.parents[1] / "README.md").read_text(encoding="utf-8")
SECTION = README.split("## Any vendor's SDK, no socket\n")[1].split("\n## ")[0]
LINES = re.findall(r"^\| (`[^|]+?) \| `([^`]+)` \|$", SECTION, re.MULTILINE)

MODEL = "mistral/mistral-small-latest"
QUESTION = "Name the bridge."
HELLO = [{"role": "user", "content": QUESTION}]
ANSWER = "The bridge is Bifrost."

IMPORTS = {
    "AnthropicProvider": "pydantic_ai.providers.anthropic",
    "MistralProvider": "pydantic_ai.providers.mistral",
    "OpenAILike": "llama_index.llms.openai_like",
    "OpenAIProvider": "pydantic_ai.providers.openai",
    "instructor": "",
    "openai": "",
}
PACKAGES = {
    "llama-index-llms-openai-like": "llama_index.llms.openai_like",
    "pydantic-ai-slim": "pydantic_ai",
}


def completion(client: Any) -> Any:
    return client.chat.completions.create(model=MODEL, messages=HELLO)


def message(client: Any) -> Any:
    return client.messages.create(model=MODEL, messages=HELLO, max_tokens=64)


def invoked(model: Any) -> Any:
    return model.ainvoke(QUESTION)


def agent(kind: str) -> Ask:
    def ask(provider: Any) -> Any:
        models = pytest.importorskip(f"pydantic_ai.models.{kind.partition(' ')[0].lower()}")
        name = {"OpenAI": "OpenAIChatModel", "Mistral": "MistralModel", "Anthropic": "AnthropicModel"}[kind]
        made = getattr(models, name)(MODEL, provider=provider)
        return pytest.importorskip("pydantic_ai").Agent(made).run(QUESTION)

    return ask


def structured(client: Any) -> Any:
    city = pytest.importorskip("pydantic").create_model("City", city=(str, ...), degrees=(int, ...))
    return client.chat.completions.create(model=MODEL, messages=HELLO, response_model=city)


def chatted(llm: Any) -> Any:
    message = pytest.importorskip("llama_index.core.llms").ChatMessage(role="user", content=QUESTION)
    return llm.achat([message])


ASK: dict[str, Ask] = {
    "`openai`": completion,
    "`openai`, blocking": completion,
    "`openai`, without a helper": completion,
    "`anthropic`": message,
    "`anthropic`, blocking": message,
    "`mistralai`": lambda client: client.chat.complete_async(model=MODEL, messages=HELLO),
    "`mistralai`, blocking": lambda client: client.chat.complete(model=MODEL, messages=HELLO),
    "`langchain-openai`": invoked,
    "`langchain-mistralai`": invoked,
    "`langchain-anthropic`": invoked,
    "`pydantic-ai-slim`": agent("OpenAI"),
    "`pydantic-ai-slim`, Mistral": agent("Mistral"),
    "`pydantic-ai-slim`, Anthropic": agent("Anthropic"),
    "`instructor`": structured,
    "`llama-index-llms-openai-like`": chatted,
}


@pytest.mark.parametrize(("name", "line"), [pytest.param(name, line, id=name.replace("`", "")) for name, line in LINES])
async def test_a_line_of_the_readme_makes_what_it_says(name: str, line: str, world: World) -> None:
    package = name.split("`")[1]
    pytest.importorskip(PACKAGES.get(package, package.replace("-", "_")))
    names: dict[str, Any] = {"router": world.router, "blocking": world.blocking, "sdks": sdks}
    for known, module in IMPORTS.items():
        if re.search(rf"(?<![\w.]){known}\b", line):
            found = pytest.importorskip(module or known)
            names[known] = getattr(found, known) if module else found
    exec(line.replace("sk-bf-…", world.virtual_key), names)
    reply = ASK[name](names[line.partition(" = ")[0]])
    told = str(await reply if inspect.isawaitable(reply) else reply)
    assert ANSWER in told or "city='Oslo' degrees=7" in told
    assert world.ledger.records[-1].principal.virtual_key_id == "vk_tests"


def test_every_line_is_asked_in_its_own_way() -> None:
    assert [name for name, _ in LINES] == list(ASK)


def test_the_versions_in_the_readme_are_those_of_the_matrix() -> None:
    environments = runpy.run_path(str(FOLDER / "matrix.py"))["ENVIRONMENTS"]
    pinned: dict[str, set[str]] = {}
    for environment in environments:
        for pin in environment.pins:
            package, version = re.sub(r"\[.*\]", "", pin).split("==")
            pinned.setdefault(package, set()).add(version)
    table = SECTION.split("| package | version |")[1].splitlines()[2:]
    cells = [cell.strip() for row in table if row for cell in row.strip("|").split("|")]
    told = {package: set(versions.split(", ")) for package, versions in zip(cells[::2], cells[1::2], strict=True)}
    del told[""]
    assert told == pinned
    tested = {name for environment in environments for names in environment.tests.values() for name in names}
    assert {path.name for path in FOLDER.glob("test_*.py")} <= tested
    assert {name.split("`")[1] for name, _ in LINES} <= pinned.keys()
