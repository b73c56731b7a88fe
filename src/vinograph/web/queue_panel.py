"""The list of a page's waiting requests, and what its buttons do."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from vinograph.web import fragments
from vinograph.web.jobs import DrawRequest
from vinograph.web.page_context import PageContext, on
from vinograph.web.queue_list import QueuedRequest, QueueState
from vinograph.web.sessions import Session

_HERE = Path(__file__).parent
_LONGEST_PROMPT = 160  # characters that are shown
_CLEAR, _STOP_ALL = "clear", "stop-all"
_PLACES = {"up": -1, "down": 1}
_ICONS = {
    "up": '<path d="M8 12V4M4 8l4-4 4 4"/>',
    "down": '<path d="M8 4v8M4 8l4 4 4-4"/>',
    "remove": '<path d="M4 4l8 8M12 4l-8 8"/>',
}


class QueuePanel:
    """The list as a component; its buttons move, remove, clear and stop."""

    def __init__(self, context: PageContext) -> None:
        """Lay the list out inside the Gradio block that is open."""
        self._context = context
        script = (_HERE / "queue_panel.js").read_text(encoding="utf-8")
        self.list = gr.HTML("", elem_id="queue", js_on_load=script)
        on(self.list.click, self.click, None, self.list, trigger_mode="multiple", queue=False)

    def click(self, request: gr.Request, event: gr.EventData) -> str:
        """Do what the button says that was clicked, and show the list as it is then."""
        session = self._context.sessions.of(self._context.session_key(request))
        action, _, key = str(getattr(event, "chosen", "")).partition(":")
        removed: Sequence[QueuedRequest | None] = ()
        if action in _PLACES:
            session.queue.move(key, _PLACES[action])
        elif action == "remove":
            removed = [session.queue.remove(key)]
        elif action in (_CLEAR, _STOP_ALL):
            removed = session.queue.clear()
        if action == _STOP_ALL:
            session.queue.stop()
        for each in removed:
            if each is not None:
                session.discard(each.draw_request)
        session.queue.settle()  # what the follower shows meanwhile may arrive before this answer
        return self.rendered(session)

    def rendered(self, session: Session) -> str:
        """The list as it is now."""
        return rendered(session.queue.state)

    def shown(self, session: Session) -> dict[Any, Any]:
        """An update with the list as it is now."""
        return {self.list: rendered(session.queue.state)}


def rendered(state: QueueState) -> str:
    """The list as HTML: empty where nothing waits and nothing failed."""
    if not state.waiting and not state.failed:
        return ""
    last = len(state.waiting) - 1
    rows = [
        _row(each, state.ahead if index == 0 else 0, index > 0, index < last)
        for index, each in enumerate(state.waiting)
    ]
    failures = [_failure(each) for each in state.failed]
    stop_all = _button(_STOP_ALL, "Stop all") if state.running is not None else ""
    count = f"{len(rows)} waiting" if rows else "Not drawn"
    return (
        f'<section class="queue" aria-label="Queue"><div class="head"><h2>Queue</h2><span>{count}</span>'
        f"{_button(_CLEAR, 'Clear')}{stop_all}</div>"
        + (f"<ol>{''.join(rows)}</ol>" if rows else "")
        + (f'<ul role="alert">{"".join(failures)}</ul>' if failures else "")
        + "</section>"
    )


def _row(queued: QueuedRequest, ahead: int, can_rise: bool, can_fall: bool) -> str:
    prompt = _prompt(queued.draw_request)
    arguments = queued.draw_request.arguments
    count = int(arguments.get("num_images_per_prompt") or 1)
    facts = [queued.draw_request.model, "1 image" if count == 1 else f"{count} images"]
    if ahead:
        facts.append("after one other job" if ahead == 1 else f"after {ahead} other jobs")
    tools = _tool("up", "Move up", queued, can_rise) + _tool("down", "Move down", queued, can_fall)
    return (
        f'<li><div class="request"><p>{escape(prompt)}</p><small>{escape(" · ".join(facts))}</small></div>'
        f'<div class="tools">{tools}{_tool("remove", "Remove", queued)}</div></li>'
    )


def _failure(queued: QueuedRequest) -> str:
    return (
        f'<li><div class="request"><p>{escape(_prompt(queued.draw_request))}</p>'
        f'<small class="error">{escape(fragments.shorten(queued.error))}</small></div>'
        f'<div class="tools">{_tool("remove", "Dismiss", queued)}</div></li>'
    )


def _prompt(draw_request: DrawRequest) -> str:
    prompt = " ".join(str(draw_request.arguments.get("prompt", "")).split())
    return prompt if len(prompt) <= _LONGEST_PROMPT else f"{prompt[:_LONGEST_PROMPT].rstrip()} …"


def _tool(action: str, title: str, queued: QueuedRequest, can: bool = True) -> str:
    name = escape(f"{title}: {_prompt(queued.draw_request)[:60]}")
    return (
        f'<button type="button" value="{action}:{escape(queued.key)}" title="{title}" aria-label="{name}"'
        f'{"" if can else " disabled"}><svg viewBox="0 0 16 16" aria-hidden="true">{_ICONS[action]}</svg></button>'
    )


def _button(value: str, text: str) -> str:
    return f'<button type="button" class="word" value="{value}">{text}</button>'
