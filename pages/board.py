"""Meeting board: slides of how the work stands, live; presented to all who follow; blind votes; one report."""

from __future__ import annotations

import html
from typing import Any

import pandas as pd
import streamlit as st

import core
from core.charts.board import enlarged
from core.report import Figure, Slide, html_report
from db.board import VOTE_SLIDE
from db.permission import Actor
from db.service import Service
from db.store import utc_now
from pages import _board_live, _sign_in, _ui, _who
from pages._board import board_component, room
from pages._board_slides import BY_KEY

COMPONENT, SCREEN = "board_component", "board_screen"
# How often a page that nobody has a name on looks for new numbers; with a name the component asks each second.
LIVE_SECONDS = 5
# In a meeting: letters of figures in pixels, how much higher than usual they are, and how high at least.
SCREENS = {"phone": (12, 1.0, 0), "desk": (16, 1.3, 420), "projector": (20, 1.6, 560)}
TALLEST_PX = 680
SENTENCES = 3
PAGES = {
    "data": ("explore.py", "Explore"), "jobs": ("jobs.py", "Jobs"), "scores": ("distributions.py", "Distributions"),
    "univariate": ("univariate.py", "Univariate"), "regression": ("regression.py", "Regression"),
    "reflection": ("reflect.py", "Reflect"),
    "review": ("campaigns.py", "Campaigns"), "pace": ("progress.py", "Progress"),
    "agreement": ("agreement.py", "Agreement"), "judging": ("compare.py", "Compare"),
}  # fmt: skip

STYLE = """<style>
.assay-slide h1 {font-size: 1.7rem; margin: 0 0 .2rem; padding: 0; letter-spacing: -.01em;}
.assay-slide p {margin: 0 0 .3rem; line-height: 1.45; max-width: 80ch; overflow-wrap: anywhere;}
.assay-slide .lead {font-size: 1.12rem; font-weight: 600;}
</style>"""
MEETING = """<style>
[data-testid="stHeader"], [data-testid="stSidebar"], [data-testid="stToolbar"], [data-testid="stDecoration"],
[data-testid="stExpandSidebarButton"], [data-testid="stSidebarCollapsedControl"] {display: none !important;}
.block-container {padding: 1.6rem clamp(.9rem, 3vw, 4rem) 5.5rem !important; max-width: none !important;}
.assay-slide h1 {font-size: clamp(1.6rem, 2.9vw, 3.6rem); font-weight: 700; line-height: 1.12; margin: 0 0 .25em;
  padding: 0; letter-spacing: -.015em;}
.assay-slide p {font-size: clamp(.98rem, 1.15vw, 1.5rem); line-height: 1.4; margin: 0 0 .35em; max-width: 125ch;
  overflow-wrap: anywhere; opacity: .86;}
.assay-slide .lead {font-size: clamp(1.12rem, 1.6vw, 2rem); font-weight: 600; opacity: 1; max-width: none;}
</style>"""


def _mode() -> str:
    return next((one for one in ("present", "follow") if st.query_params.get(one) == "1"), "")


def _shown(service: Service) -> str:
    """The slide of the URL, else the first that has something to show."""
    asked = st.query_params.get("slide", "")
    if asked in BY_KEY or asked == VOTE_SLIDE:
        return asked
    return _board_live.present(service)[0].key


def _go() -> None:
    """A callback: what the component asked for, into the URL."""
    sent: dict[str, Any] = dict(st.session_state[COMPONENT].get("go") or {})
    slide, mode = sent.get("slide"), sent.get("mode")
    if isinstance(slide, str) and (slide in BY_KEY or slide == VOTE_SLIDE):
        st.query_params["slide"] = slide
    if mode in room.MODES:
        for name in ("present", "follow"):
            st.query_params.pop(name, None)
        if mode:
            st.query_params[mode] = "1"
    if sent.get("screen") in SCREENS:
        st.session_state[SCREEN] = sent["screen"]


def _bar(service: Service, actor: Actor | None, mode: str, shown: str) -> None:
    who = actor or Actor(identity="", name="", role="viewer")
    state = room.state(service, who, session="page", mode="", slide=shown)
    board_component(
        {
            "api": "/api/board",
            "token": _who.api_token(),
            "mode": mode,
            "slide": shown,
            "version": state["version"],
            "screen": st.session_state.get(SCREEN, "desk"),
            "me": {"name": who.name, "reviewer": who.may("review"), "admin": who.may("administer")},
            "state": state,
        },
        key=COMPONENT,
        on_go=_go,
    )


# ---- a slide ----


def _words(slide: Slide, *, meeting: bool) -> None:
    sentences = slide.text[: SENTENCES if meeting or len(slide.text) > 5 else None]
    said = "".join(
        f'<p class="{"lead" if i == 0 else ""}">{html.escape(sentence)}</p>' for i, sentence in enumerate(sentences)
    )
    # Figures of the slide before are gone with its words, not when theirs come: two slides shall not be mixed.
    only = f'[class*="st-key-board-"]:not([class*="st-key-board-{slide.key}-"]):has(.js-plotly-plot)'
    hide = f"<style>{only} {{visibility: hidden;}}</style>" if meeting else ""
    st.html(f'{hide}<div class="assay-slide"><h1>{html.escape(slide.title)}</h1>{said}</div>')
    rest = slide.text[len(sentences) :]
    if rest and not meeting:
        with st.expander(f"{len(rest)} more in words"):
            for sentence in rest:
                st.markdown(_ui.plain(sentence))


def _figure(slide: Slide, one: Figure, *, meeting: bool, screen: str) -> None:
    key = f"board-{slide.key}-{one.name}"
    drawn = one.narrow if screen == "phone" and one.narrow is not None else one.figure
    if not meeting:
        st.markdown(f"**{_ui.plain(one.title)}**")
        _ui.chart(drawn, key=key, data=pd.DataFrame(list(one.rows)), name=one.name)
        return
    font_px, scale, least_px = SCREENS[screen]
    usual = int(drawn.layout.height or 380)
    height = max(least_px, min(max(TALLEST_PX, usual), round(scale * usual)))
    st.plotly_chart(
        enlarged(drawn, font_px=font_px, height=height),
        key=f"{key}-meeting-{screen}",
        config={"displayModeBar": False},
    )


def _figures(slide: Slide, *, meeting: bool, screen: str) -> None:
    halves = [one for one in slide.figures if not one.wide]
    for one in slide.figures:
        if one.wide:
            _figure(slide, one, meeting=meeting, screen=screen)
    if halves:
        for column, one in zip(st.columns(len(halves), gap="large"), halves, strict=True):
            with column:
                _figure(slide, one, meeting=meeting, screen=screen)


def _tables(slide: Slide) -> None:
    for table in slide.tables:
        if table.rows:
            st.markdown(f"**{_ui.plain(table.title)}**")
            st.dataframe(
                pd.DataFrame(list(table.rows)), hide_index=True, key=f"board-{slide.key}-{table.name}",
                height="content" if len(table.rows) < 10 else 320, placeholder="—",
            )  # fmt: skip


def _slide(service: Service, key: str, *, meeting: bool, screen: str) -> None:
    slide, _ = _board_live.slide(service, key)
    if slide.missing is not None:
        _words(slide, meeting=meeting)
        _ui.empty(_ui.plain(slide.missing.text), page=slide.missing.page, label=slide.missing.label)
        return
    _words(slide, meeting=meeting)
    _figures(slide, meeting=meeting, screen=screen)
    if meeting:
        return
    _tables(slide)
    if key in PAGES:
        page, words = PAGES[key]
        st.page_link(page, label=f"More on the page {words}", icon=":material/arrow_forward:")


# ---- the page ----


def _report(service: Service, actor: Actor | None) -> bytes:
    """The whole board as one HTML file, of the moment in which the button was pressed."""
    made = html_report(
        _board_live.all_slides(service),
        title="Meeting report",
        made_at=utc_now(),
        made_by=actor.name if actor else "",
        version=core.__version__,
    )
    return made.encode("utf-8")


def _head(service: Service, actor: Actor | None) -> None:
    left, right = st.columns([4, 1], vertical_alignment="bottom")
    with left:
        _ui.header(
            "Meeting board",
            "How the work stands, live. Present it to all who follow, vote blind on a pair, take the report home.",
        )
    with right:
        st.download_button(
            "Report",
            data=lambda: _report(service, actor),
            file_name=f"assay-report-{utc_now():%Y-%m-%d}.html",
            mime="text/html",
            key="board-report",
            icon=":material/download:",
            on_click="ignore",
            help="One HTML file with every figure, its numbers and what it shows. It needs no network; open it and "
            "print it for a PDF.",
            width="stretch",
        )


def _show() -> None:
    """Everything on this page. A move of the component reruns this function only."""
    service, actor, mode = _ui.current_service(), _ui.actor(), _mode()
    shown, screen = _shown(service), str(st.session_state.get(SCREEN, "desk"))
    st.html(MEETING if mode else STYLE)
    if mode:
        _sign_in.ask_name("joining the meeting", button="Join")
    else:
        _head(service, actor)
    _bar(service, actor, mode, shown)
    if shown != VOTE_SLIDE:
        _slide(service, shown, meeting=bool(mode), screen=screen)


# While a name is asked for nothing is live: a run of its own would take the form's own words away.
st.fragment(_show, run_every=None if _who.api_token() or _mode() else LIVE_SECONDS)()
