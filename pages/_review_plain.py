"""The plain desk: the same review with Streamlit's own buttons and text areas, for browsers where the fast one fails.

Every button carries the pair it was drawn for, in its key and its arguments: a press that arrives after another pair
came on screen is refused, never stored on the wrong one.
"""

from __future__ import annotations

import html
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from core.errors import AssayError
from core.example import Example
from db import drafts
from pages import _ui
from pages._review.desk import Desk
from pages._review.request import AGAIN, LogEntry, Request
from pages._review.seat import Seat

STATE = "review_plain"
LOOK_AHEAD = 1
_TEXTS = ("instruction", "input", "output")
DECIDING = (
    ("accept", "✓ Accept", "a", "Take the reflected pair"),
    ("reject", "✗ Reject", "x", "Keep the original"),
    ("new_instruction", "New instruction + old response", "1", "Accept the new instruction with the old response"),
    ("new_response", "Old instruction + new response", "2", "Accept the old instruction with the new response"),
    ("skip", "Skip", "s", "Decide later"),
)
MOVING = (("back", "← Back", "b", "Go back without deciding"), ("forward", "Forward →", "n", "Go on without deciding"))


@dataclass
class Plain:
    """What lies on the plain desk. ``views``: the pair on screen, then those ahead; ``behind``: those passed."""

    desk: str
    log: str
    views: list[dict[str, Any]]
    head: dict[str, Any]
    end: dict[str, Any] | None
    n: int = 0
    behind: list[dict[str, Any]] = field(default_factory=list)
    mode: str = "read"
    answer: tuple[str, str] | None = None

    @property
    def on_screen(self) -> dict[str, Any] | None:
        return self.views[0] if self.views else None


def _state(seat: Seat) -> Plain:
    kept: Plain | None = st.session_state.get(STATE)
    if kept is None or kept.desk != seat.desk:
        first = seat.first
        kept = Plain(seat.desk, secrets.token_hex(16), list(first["pairs"]), first["head"], first["end"])
        st.session_state[STATE] = kept
    return kept


# ---- what a press does ----


def _send(
    plain: Plain, desk: Desk, entry: LogEntry | None, *, ahead: list[dict[str, Any]], again: str | None = None
) -> dict[str, Any] | None:
    """Store ``entry`` and fill up behind ``ahead``, what is to be on screen then; None: nothing was stored, and why."""
    actor = _ui.actor()
    holding = tuple(one["pair_id"] for one in ahead)
    request = Request(
        desk=desk.key, log=plain.log, scope=desk.scope.named, entries=() if entry is None else (entry,),
        holding=holding, on_screen=next(iter(holding), None), want=max(0, 1 + LOOK_AHEAD - len(holding)), again=again,
    )  # fmt: skip
    try:
        if actor is None:
            raise AssayError("You are signed out. Nothing was stored; sign in again.")
        answer = desk.sync(actor, request)
    except AssayError as error:
        plain.answer = ("error", str(error))
        return None
    if entry is not None:
        plain.n = entry.n
    dropped = set(answer["dropped"])
    plain.views = [one for one in [*([] if again else ahead), *answer["pairs"]] if one["pair_id"] not in dropped]
    plain.head, plain.end = answer["head"], answer["end"]
    if not plain.views and answer["pairs"] == [] and dropped:
        _send(plain, desk, None, ahead=[])
    return answer


def press(desk: Desk, pair_id: int | None, action: str, verdict: str = "", **more: Any) -> None:
    """Carry out a press of a button that was drawn for ``pair_id`` (a button's callback)."""
    plain: Plain = st.session_state[STATE]
    now = plain.on_screen
    shown = None if now is None else now["pair_id"]
    if desk.key != plain.desk or pair_id != shown:
        plain.answer = ("error", f"That press was meant for {_name(pair_id)}, but {_name(shown)} is on screen now. "
                                 "Nothing was stored.")  # fmt: skip
        return
    plain.answer = None
    if action in AGAIN:
        plain.behind = []
        _send(plain, desk, None, ahead=[], again=action)
    elif action == "forward" and now is not None:
        if _send(plain, desk, None, ahead=plain.views[1:]) is not None:
            plain.behind.append(now)
    elif action == "back" and plain.behind:
        before = desk.one(plain.behind.pop()["pair_id"])
        if before is not None:
            plain.views = [before, *plain.views]
    elif action in ("decide", "flag", "unflag", "undo"):
        seen = None if now is None else now["seen"]
        entry = LogEntry(n=plain.n + 1, action=action, pair_id=pair_id, verdict=verdict, seen=seen, **more)
        _store(plain, desk, entry)


def _store(plain: Plain, desk: Desk, entry: LogEntry) -> None:
    moves = entry.action == "decide"
    now = plain.on_screen
    answer = _send(plain, desk, entry, ahead=plain.views[1:] if moves else list(plain.views))
    if answer is None:
        return
    result = answer["results"][0]
    plain.answer = (result["kind"], result["text"])
    fresh = result["pair"]
    if result["kind"] == "error" and moves and now is not None:
        plain.views = [fresh or now, *plain.views]
        return
    plain.mode = "read"
    if moves and now is not None:
        plain.behind.append(now)
    elif fresh is not None:
        plain.views = [fresh, *(one for one in plain.views if one["pair_id"] != fresh["pair_id"])]
        plain.behind = [one for one in plain.behind if one["pair_id"] != fresh["pair_id"]]


def _name(pair_id: int | None) -> str:
    return "the end of the queue" if pair_id is None else f"pair {pair_id}"


def _set_mode(mode: str) -> None:
    st.session_state[STATE].mode = mode


def _area_key(pair_id: int, name: str) -> str:
    return f"review_plain_edit-{pair_id}-{name}"


def _typed(view: Mapping[str, Any]) -> dict[str, str]:
    """What stands in the text areas of a pair, else its draft, else the reflected texts."""
    texts = dict.fromkeys(_TEXTS, "")
    texts |= {one["field"]: "".join(text for _, text in one["reflected"]) for one in view["fields"]}
    texts |= (view.get("draft") or {}).get("texts", {})
    state = st.session_state
    return {name: state.get(_area_key(view["pair_id"], name), text) for name, text in texts.items()}


def _keep_draft(desk: Desk, view: dict[str, Any]) -> None:
    texts = _typed(view)
    try:
        drafts.save(desk.service.store, desk.identity, {view["pair_id"]: texts})
    except AssayError as error:
        st.session_state[STATE].answer = ("error", f"Your draft was not kept: {error}")
        return
    view["draft"] = {"texts": texts}


def _save_edit(desk: Desk, view: dict[str, Any]) -> None:
    _keep_draft(desk, view)
    press(desk, view["pair_id"], "decide", "edit", edited=Example(**_typed(view)))


def _forget_draft(desk: Desk, view: dict[str, Any]) -> None:
    drafts.save(desk.service.store, desk.identity, {view["pair_id"]: None})
    view["draft"] = None
    for name in _TEXTS:
        st.session_state.pop(_area_key(view["pair_id"], name), None)


def _save_flag(desk: Desk, pair_id: int, key: str) -> None:
    press(desk, pair_id, "flag", note=st.session_state.get(key, ""))


# ---- what is drawn ----


@st.fragment
def show_desk(desk: Desk, seat: Seat, after_the_end: Callable[[Seat], None]) -> None:
    """The pair on screen with its buttons. A press reruns this function only, once it is stored."""
    plain = _state(seat)
    view = plain.on_screen
    _head(plain)
    if view is None:
        _end(desk, plain, seat, after_the_end)
        return
    # The browser draws in the order of the run: buttons that came first were pressed for a pair not yet to be read.
    bar = st.container()
    _facts(view)
    if plain.mode == "edit":
        _edit(desk, view)
    else:
        _texts(view)
    with bar:
        _buttons(desk, plain, view)
    _said(view)
    if desk.scope.guidelines:
        with st.expander("Guidelines of this campaign", key=f"review_plain_guidelines-{seat.desk}"):
            _ui.text_block(desk.scope.guidelines)


def _head(plain: Plain) -> None:
    head = plain.head
    place = f"Pair {head['position']:,} of {head['length']:,} · " if head["position"] and plain.views else ""
    parts = [f"{place}{head['decided']:,} of {head['pairs']:,} decided", f"{head['today']:,} today by you"]
    if head["median_seconds"] is not None:
        parts.append(f"median {head['median_seconds']:.1f} s a decision")
    kind, said = plain.answer or ("ok", "")
    # In the line that is always there: buttons must not move below a pointer.
    parts += [said] if said and kind != "error" else []
    st.caption(_ui.plain(" · ".join(parts)))
    if kind == "error":
        st.error(_ui.plain(said), icon=":material/error:")


def _buttons(desk: Desk, plain: Plain, view: Mapping[str, Any]) -> None:
    pair_id = view["pair_id"]
    reading = plain.mode == "read"
    with st.container(horizontal=True, key=f"review_plain_bar-{pair_id}"):
        for verdict, label, shortcut, about in DECIDING:
            if verdict.startswith("new_") and not view["mixes"]:
                continue
            st.button(
                label, key=f"review_plain-{verdict}-{pair_id}", shortcut=shortcut, help=about, disabled=not reading,
                type="primary" if verdict == "accept" else "secondary", on_click=press,
                args=(desk, pair_id, "decide", verdict),
            )  # fmt: skip
        st.button("✎ Edit", key=f"review_plain-edit-{pair_id}", shortcut="e", disabled=not reading,
                  on_click=_set_mode, args=("edit",))  # fmt: skip
        with st.popover("⚑ Flag", key=f"review_plain-flagging-{pair_id}", disabled=not reading):
            _flag(desk, view)
        st.button("↶ Undo", key=f"review_plain-undo-{pair_id}", shortcut="u", disabled=not reading,
                  on_click=press, args=(desk, pair_id, "undo"))  # fmt: skip
        for action, label, shortcut, about in MOVING:
            st.button(label, key=f"review_plain-{action}-{pair_id}", shortcut=shortcut, help=about, type="tertiary",
                      disabled=not reading or (action == "back" and not plain.behind), on_click=press,
                      args=(desk, pair_id, action))  # fmt: skip


def _flag(desk: Desk, view: Mapping[str, Any]) -> None:
    pair_id, flag = view["pair_id"], view["flag"]
    key = f"review_plain-note-{pair_id}"
    st.text_input("Note for the flag (may be empty)", value=flag["note"] if flag else "", key=key, max_chars=2000)
    st.button("Save flag", key=f"review_plain-flag-{pair_id}", on_click=_save_flag, args=(desk, pair_id, key))
    if flag:
        st.button("Remove flag", key=f"review_plain-unflag-{pair_id}", on_click=press, args=(desk, pair_id, "unflag"))


def _facts(view: Mapping[str, Any]) -> None:
    labels = [_ui.badge(f"pair {view['pair_id']}")] + [_ui.badge(f"{b['label']} {b['text']}") for b in view["badges"]]
    if view["decision"]:
        labels.append(_ui.badge(view["decision"]["text"], "bad" if view["decision"]["kind"] == "reject" else "good"))
    if view["flag"]:
        labels.append(_ui.badge(f"⚑ {view['flag']['text']}"))
    _ui.badges(*labels)
    parts = [f"⚑ Note: {view['flag']['note']}"] if view["flag"] and view["flag"]["note"] else []
    parts += [f"{one['name']} {one['original']} → {one['reflected']} {one['change']}" for one in view["scores"]]
    parts += [f"No {one['name']}. {reason}" for one in view["scores"] for reason in one["missing"]]
    if view["proposal"]:
        parts.append(f"{view['proposal']['title']}: {view['proposal']['reason']}")
    lines = "".join(f"<div>{html.escape(part)}</div>" for part in parts)
    st.html(f'<div style="font-size:.85rem;line-height:1.5;opacity:.85;overflow-wrap:anywhere">{lines}</div>')


def marked(segments: list[list[Any]], mark: str) -> str:
    """Segments of a text (changed or not, text) as HTML in which nothing of the text is interpreted."""
    # A browser takes minutes over a very long word: it gets places to break at.
    parts = [
        "<wbr>".join(html.escape(text[start : start + 400]) for start in range(0, len(text), 400))
        for _, text in segments
    ]
    return "".join(
        f"<{mark}>{part}</{mark}>" if changed else part for (changed, _), part in zip(segments, parts, strict=True)
    )


def _texts(view: Mapping[str, Any]) -> None:
    for one in view["fields"]:
        note = f" · {one['note']}" if one["note"] else ""
        for column, side, mark in zip(st.columns(2), ("original", "reflected"), ("del", "ins"), strict=True):
            title = html.escape(f"{one['label']} · {side}{note if side == 'reflected' else ''}")
            body = marked(one[side], mark) or '<span style="opacity:.6">(empty)</span>'
            column.html(f'<div class="assay-label">{title}</div><div class="assay-text {side}">{body}</div>')


def _edit(desk: Desk, view: dict[str, Any]) -> None:
    pair_id, texts = view["pair_id"], _typed(view)
    originals = {one["field"]: "".join(text for _, text in one["original"]) for one in view["fields"]}
    for name, label in zip(_TEXTS, ("Instruction", "Input", "Response"), strict=True):
        left, right = st.columns(2)
        with left:
            _ui.text_block(originals.get(name, ""), label=f"{label} · original", kind="original")
        key = _area_key(pair_id, name)
        st.session_state.setdefault(key, texts[name])
        right.text_area(
            f"{label} · your edit", key=key, height="content", on_change=_keep_draft, args=(desk, view),
        )  # fmt: skip
    with st.container(horizontal=True):
        st.button("✓ Save edit and accept", key=f"review_plain-save-{pair_id}", type="primary",
                  on_click=_save_edit, args=(desk, view))  # fmt: skip
        st.button("Leave (the draft is kept)", key=f"review_plain-leave-{pair_id}", on_click=_set_mode, args=("read",))
        st.button("Start again from the reflected text", key=f"review_plain-restart-{pair_id}", type="tertiary",
                  on_click=_forget_draft, args=(desk, view))  # fmt: skip


def _said(view: Mapping[str, Any]) -> None:
    for voice in view["voices"]:
        st.markdown(_ui.plain(f"{voice['name']}: {voice['text']}"))
        if voice.get("note"):
            _ui.text_block(str(voice["note"]))
    if view["critique"]:
        with st.expander("What the teacher said (critique)"):
            for label, said in view["critique"]:
                _ui.text_block(said, label=label)
    if view["history"]:
        with st.expander(f"History of this pair ({len(view['history'])})"):
            for event in view["history"]:
                note = f" — {event['note']}" if event["note"] else ""
                st.markdown(_ui.plain(f"{event['text']}{note}{' (taken back)' if event['undone'] else ''}"))


def _end(desk: Desk, plain: Plain, seat: Seat, after_the_end: Callable[[Seat], None]) -> None:
    end = plain.end or {"title": "Nothing for you at this moment", "lines": ["All that is left lies on other desks."],
                        "skipped": 0, "passed": 0}  # fmt: skip
    with st.container(border=True):
        st.markdown(f"**{_ui.plain(end['title'])}**")
        for line in end["lines"]:
            st.markdown(_ui.plain(line))
        with st.container(horizontal=True):
            for action, label in (
                ("skipped", f"Go through the {end['skipped']:,} skipped" if end["skipped"] else ""),
                ("passed", f"Go through the {end['passed']:,} passed by" if end["passed"] else ""),
                ("undo", "↶ Undo"),
                ("reload", "Look again"),
            ):
                if label:
                    st.button(label, key=f"review_plain-end-{action}-{seat.desk}-{plain.n}", on_click=press,
                              args=(desk, None, action))  # fmt: skip
    after_the_end(seat)
