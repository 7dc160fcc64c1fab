"""Errors of handlers, as the page shows them."""

from __future__ import annotations

import functools
import inspect
import logging
import re
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar

from mixtura.errors import MixturaError

if TYPE_CHECKING:
    import gradio as gr

LOG = logging.getLogger("mixtura_demos")
PATH = re.compile(r"(?<![\w:/])~?/[^\s'\"<>|]*/([^\s'\"<>|/]*)")
Handler = TypeVar("Handler", bound=Callable[..., Any])


class Refused(MixturaError):
    """What was uploaded or entered can't be used; the text is one clear sentence with the remedy."""


def shown(function: Handler) -> Handler:
    """A handler (plain or generator) whose errors are shown in the page.

    A MixturaError is shown with its text, anything else is logged and shown as one line; of paths only the last part stays.
    """
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def stepwise(*args: Any, **kwargs: Any) -> Generator[Any, None, None]:
            try:
                yield from function(*args, **kwargs)
            except Exception as error:
                raise for_page(error) from error

        return stepwise  # type: ignore[return-value]

    @functools.wraps(function)
    def whole(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise for_page(error) from error

    return whole  # type: ignore[return-value]


def for_page(error: Exception) -> gr.Error:
    """The error as gradio shows it: red, until it is closed."""
    import gradio as gr

    if isinstance(error, gr.Error):
        return error
    if isinstance(error, MixturaError):
        return gr.Error(without_folders(str(error)), duration=None, print_exception=False)
    LOG.exception("a demo's handler failed")
    reason = without_folders(f"{type(error).__name__}: {error}".splitlines()[0])
    return gr.Error(f"something went wrong: {reason} (the server's log tells where)", duration=None, print_exception=False)


def without_folders(text: str) -> str:
    """The text with `/home/me/runs/a/config.yaml` as `config.yaml`: where things lie on the server is nobody's business."""
    return PATH.sub(r"\1", text)
