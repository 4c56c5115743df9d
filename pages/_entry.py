"""The entry of every page run: navigation, style, and what keeps the store from opening."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from core.errors import NotAllowedError
from db import service
from pages import _sign_in, _ui

st.set_page_config(page_title="Assay", page_icon=str(Path(__file__).parent / "pictures" / "icon.png"), layout="wide")
st.html(_ui.STYLE)

if service.problem() is not None:
    st.title("Assay cannot open its store", anchor=False)
    st.error(_ui.plain(str(service.problem())), icon=":material/database_off:")
    st.stop()

admitted = _sign_in.is_admitted()
PAGES = {
    "Data": [
        st.Page("home.py", title="Home", icon=":material/home:", default=True),
        st.Page("load.py", title="Load", icon=":material/upload_file:", url_path="load"),
        st.Page("explore.py", title="Explore", icon=":material/table_rows:", url_path="explore"),
    ],
    "Scores": [
        st.Page("score.py", title="Score", icon=":material/speed:", url_path="score"),
        st.Page("distributions.py", title="Distributions", icon=":material/bar_chart:", url_path="distributions"),
        st.Page("relations.py", title="Relations", icon=":material/scatter_plot:", url_path="relations"),
        st.Page("map.py", title="Map", icon=":material/bubble_chart:", url_path="map"),
    ],
    "Studies": [
        st.Page("evaluation.py", title="Evaluation sets", icon=":material/fact_check:", url_path="evaluation"),
        st.Page("studies.py", title="Studies", icon=":material/experiment:", url_path="studies"),
        st.Page("univariate.py", title="Univariate", icon=":material/show_chart:", url_path="univariate"),
        st.Page("regression.py", title="Regression", icon=":material/functions:", url_path="regression"),
        st.Page("select.py", title="Select", icon=":material/filter_alt:", url_path="select"),
    ],
    "Reflection": [
        st.Page("reflect.py", title="Reflect", icon=":material/auto_awesome:", url_path="reflect"),
        st.Page("prompts.py", title="Prompts", icon=":material/edit_note:", url_path="prompts"),
    ],
    "Review": [
        st.Page("review.py", title="Review", icon=":material/compare:", url_path="review"),
        st.Page("pairs.py", title="Pairs", icon=":material/manage_search:", url_path="pairs"),
        st.Page("campaigns.py", title="Campaigns", icon=":material/flag:", url_path="campaigns"),
        st.Page("agreement.py", title="Agreement", icon=":material/handshake:", url_path="agreement"),
        st.Page("history.py", title="History", icon=":material/history:", url_path="history"),
        st.Page("export.py", title="Export", icon=":material/output:", url_path="export"),
    ],
    "Comparison": [
        st.Page("answers.py", title="Answers", icon=":material/question_answer:", url_path="answers"),
        st.Page("compare.py", title="Compare", icon=":material/balance:", url_path="compare"),
        st.Page("judge.py", title="Judge blind", icon=":material/visibility_off:", url_path="judge"),
        st.Page("experiment.py", title="Does it help?", icon=":material/science:", url_path="experiment"),
    ],
    "Team": [
        st.Page("jobs.py", title="Jobs", icon=":material/pending_actions:", url_path="jobs"),
        st.Page("progress.py", title="Progress", icon=":material/groups:", url_path="progress"),
        st.Page("board.py", title="Meeting board", icon=":material/cast_for_education:", url_path="board"),
        st.Page("people.py", title="People", icon=":material/badge:", url_path="people"),
    ],
}
page = st.navigation(
    PAGES,
    position="sidebar" if admitted else "hidden",
    expanded=True,  # Streamlit folds the list where something stands below it
)
if not admitted:
    _sign_in.show_door()
    st.stop()
_sign_in.show_who()
_sign_in.return_to_wanted((one for group in PAGES.values() for one in group), page)
try:
    page.run()
except NotAllowedError as error:
    _sign_in.show_refusal(error)
