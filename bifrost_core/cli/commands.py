"""The commands: arguments in, one clear line out when something is wrong."""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import anyio
import attrs
import click

from bifrost_core.config import options_from_env
from bifrost_core.errors import BifrostError, CallError, ConfigError
from bifrost_core.providers.base import Provider
from bifrost_core.providers.mistral import Mistral
from bifrost_core.router import Router

from . import demo as demonstration
from . import display
from . import prices as price_list
from .scoreboard import Scoreboard

__all__ = ["bifrost", "run"]

_F = TypeVar("_F", bound=Callable[..., Any])

_MODEL: Final = "mistral/mistral-small-latest"
_VARIABLE: Final = "MISTRAL_API_KEY"
_BASE_URL: Final = "https://api.mistral.ai"
_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
_CONTROLS: Final = {code: None for code in (*range(32), *range(0x7F, 0xA0)) if code not in (0x09, 0x0A)}


@attrs.define(eq=False)
class _Settings:
    """What holds for every command."""

    debug: bool = False


def _note_debug(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    context.ensure_object(_Settings).debug |= value


def _debug(function: _F) -> _F:
    """The option ``--debug``, before and after the command's name."""
    return click.option(
        "--debug", is_flag=True, expose_value=False, callback=_note_debug, help="Show the traceback of an error."
    )(function)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command and say in one line what went wrong; returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without a letter shows a question mark
    settings = _Settings()
    try:
        status = bifrost.main(
            args=None if arguments is None else list(arguments),
            prog_name="bifrost",
            standalone_mode=False,
            obj=settings,
        )
    except click.ClickException as exc:
        command = getattr(getattr(exc, "ctx", None), "command_path", "bifrost")
        sys.stderr.write(f"{command}: {' '.join(exc.format_message().split())} ({command} --help shows how)\n")
        return exc.exit_code
    except (KeyboardInterrupt, click.Abort):
        sys.stderr.write("bifrost: interrupted\n")
        return _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter fails at its last flush
        return 1
    except Exception as exc:
        if settings.debug:
            raise
        sys.stderr.write(f"bifrost: {_sentence(exc)}\n")
        return 1
    return status if isinstance(status, int) else 0


def _sentence(error: Exception) -> str:
    """An error in one line."""
    members: Sequence[Exception] = [error]
    while len(members) == 1 and isinstance(members[0], ExceptionGroup):
        members = cast("ExceptionGroup[Exception]", members[0]).exceptions
    if len(members) == 1:
        error = members[0]
    if isinstance(error, BifrostError):
        tries = len(error.attempts) if isinstance(error, CallError) else 0
        return " ".join(error.message.split()) + (f" (after {tries} attempts)" if tries > 1 else "")
    return f"{type(error).__name__}: {' '.join(str(error).split())} (--debug shows where)"


class _Commands(click.Group):
    """The commands here, and those that installed distributions bring.

    One of theirs is an entry point of the group ``bifrost.cli``, named as the command is, whose value is a
    ``click.Command``; it is imported when it, or the help that lists it, is asked for.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_brought()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        entry = _brought().get(cmd_name)
        if entry is None:
            return None
        command = entry.load()
        if not isinstance(command, click.Command):
            raise ConfigError(f"{entry.value} is no command of click; {cmd_name} can not be run", field=cmd_name)
        return command


def _brought() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group="bifrost.cli")}


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(package_name="bifrost-core", prog_name="bifrost")
@_debug
@click.pass_context
def bifrost(context: click.Context) -> None:
    """Route LLM calls over several keys."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


_model = click.option("--model", default=_MODEL, show_default=True, help="Provider and model.")
_base_url = click.option(
    "--base-url",
    envvar="MISTRAL_BASE_URL",
    default=_BASE_URL,
    show_default=True,
    show_envvar=True,
    help="Mistral's API.",
)


@bifrost.command()
@click.argument("prompt")
@_model
@click.option("--system", help="What the model is told first.")
@_base_url
@click.option("--verbose", "-v", is_flag=True, help="Say at the end which key answered, how fast and for how much.")
@_debug
def chat(prompt: str, model: str, system: str | None, base_url: str, *, verbose: bool) -> None:
    """Answer PROMPT while it is being written; "-" reads it from standard input.

    The keys are those in MISTRAL_API_KEY, MISTRAL_API_KEY_2 and so on; of OPENAI_API_KEY and ANTHROPIC_API_KEY
    for their models.
    """
    if prompt == "-":
        prompt = sys.stdin.read()
    if not prompt.strip():
        raise click.UsageError("the prompt is empty")
    messages = [{"role": "user", "content": prompt}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    anyio.run(_chat, _from_environment(model, base_url), model, messages, verbose)


async def _chat(provider: Provider, model: str, messages: list[dict[str, str]], verbose: bool) -> None:
    write = _writer()
    async with Router([provider]) as router, router.stream(model, messages) as stream:
        try:
            async for text in stream.text():
                write(text)
        finally:
            write("\n")
        if verbose:
            response = stream.response
            usage, cost = response.usage, "unknown" if response.cost is None else f"{response.cost:f} USD"
            sys.stderr.write(
                f"{response.route.provider}/{response.route.model} on {response.route.key_id}: "
                f"{response.time_to_first_token or 0:.2f} s to the first token, {response.latency:.2f} s in all; "
                f"{usage.input_tokens} + {usage.output_tokens} tokens, cost {cost}\n"
            )


def _writer() -> Callable[[str], None]:
    """Writes to standard output at once; to a terminal without what could steer it."""
    is_terminal = sys.stdout.isatty()

    def write(text: str) -> None:
        sys.stdout.write(text.translate(_CONTROLS) if is_terminal else text)
        sys.stdout.flush()

    return write


@bifrost.command()
@click.option("--live", is_flag=True, help="On the real API, with the keys in MISTRAL_API_KEY, MISTRAL_API_KEY_2 …")
@click.option("--plain", is_flag=True, help="Lines instead of a table; so it is anyway when the output is no terminal.")
@click.option("--calls", type=click.IntRange(1, 100_000), default=300, show_default=True, help="How many chats.")
@click.option("--concurrency", type=click.IntRange(1, 1000), default=16, show_default=True, help="How many at once.")
@click.option("--seed", type=int, default=7, show_default=True, help="Of everything random.")
@_model
@_base_url
@_debug
def demo(*, live: bool, plain: bool, calls: int, concurrency: int, seed: int, model: str, base_url: str) -> int:
    """Route a few hundred chats over several keys, half of them streamed, and show how.

    Without --live nothing leaves this machine and no key is needed: a server on loopback speaks Mistral's
    API with four keys: one fast, one slow, one whose small quota another service uses too, and one that
    breaks for a while.
    """
    play = _Demo(model, calls, concurrency, seed, plain=plain or not sys.stdout.isatty())
    try:
        if live:
            anyio.run(play.live, _from_environment(model, base_url))
        else:
            anyio.run(play.simulated)
    except KeyboardInterrupt:
        play.finish()
        raise
    return play.finish()


@attrs.define(eq=False)
class _Demo:
    """One run of the demo."""

    model: str
    calls: int
    callers: int
    seed: int
    plain: bool = attrs.field(kw_only=True)
    board: Scoreboard = attrs.field(factory=lambda: Scoreboard(()), init=False)

    async def live(self, provider: Provider) -> None:
        """On the real API."""
        bound = demonstration.dearest(self.model, self.calls)
        cost = "at a price unknown to this version" if bound is None else f"for at most {bound} USD, retries aside"
        click.echo(f"{self.calls} chats on {provider.name} over {len(provider.keys)} keys, {cost}")
        await self._play(provider)

    async def simulated(self) -> None:
        """On a server of its own."""
        async with demonstration.simulation(self.seed) as server:
            click.echo(
                f"{self.calls} chats on a simulated Mistral at {server.base_url}, {self.callers} at once. "
                "With keys in the environment, --live asks the real one."
            )
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(demonstration.neighbour, server, self.model)
                await self._play(demonstration.simulated(server), events=demonstration.script(server, self.calls))
                tasks.cancel_scope.cancel()

    async def _play(self, provider: Provider, events: Sequence[tuple[int, Callable[[], None]]] = ()) -> None:
        self.board = Scoreboard(key.id for key in provider.keys)
        with display.show_lines(self.calls) if self.plain else display.show_table(self.calls) as show:
            await demonstration.play(
                provider,
                self.board,
                model=self.model,
                calls=self.calls,
                callers=min(self.callers, self.calls),
                seed=self.seed,
                show=show,
                every=1.0 if self.plain else 0.25,
                events=events,
            )

    def finish(self) -> int:
        """Print the totals; returns 1 when a call failed."""
        self.board.stop()
        if self.board.calls:
            display.totals(self.board, plain=self.plain)
        return int(self.board.failed > 0)


@bifrost.group(invoke_without_command=True)
@click.option("--filter", "text", default="", metavar="TEXT", help="Only models with TEXT in their name.")
@_debug
@click.pass_context
def prices(context: click.Context, text: str) -> int:
    """Show the prices that ship with this version, in USD."""
    return price_list.show(text) if context.invoked_subcommand is None else 0


@prices.command()
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The file to write.")
@click.option("--contexts", type=click.Path(dir_okay=False, path_type=Path), help="A file for the lengths of contexts.")
@click.option("--date", "day", type=click.DateTime(["%Y-%m-%d"]), help="Prices of this day.  [default: today, UTC]")
@click.option(
    "--provider",
    "providers",
    multiple=True,
    default=["mistral", "openai", "anthropic"],
    show_default=True,
    help="Whose prices; may be repeated.",
)
@_debug
def refresh(out: Path, contexts: Path | None, day: datetime.datetime | None, providers: tuple[str, ...]) -> None:
    """Make the files of built-in prices and contexts from the library genai-prices and the corrections kept here.

    Prices that cannot be said exactly (several tiers, times of day, units of other kinds) are left out and listed.
    """
    price_list.refresh(out, contexts, (day or datetime.datetime.now(datetime.UTC)).date(), providers)


def _from_environment(model: str, base_url: str) -> Provider:
    """The provider that a model's name means, with every key of it in the environment.

    Args:
        model: ``"provider/model"``, or a name that tells its provider.
        base_url: Where Mistral is.
    """
    providers: list[Provider] = options_from_env(os.environ)["providers"]
    named, slash, _ = model.partition("/")
    for provider in providers:
        if provider.name == named or (not slash and provider.knows(model)):
            return Mistral(provider.keys, base_url=base_url) if isinstance(provider, Mistral) else provider
    variable = f"{named.upper()}_API_KEY" if slash else _VARIABLE
    raise ConfigError(f"no key for {model} in the environment; set {variable}", field=variable)
