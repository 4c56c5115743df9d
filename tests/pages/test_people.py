"""People and roles on pages: what a role cannot do is switched off with the reason, and refused when sent anyway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from core.sign_in import PROVIDER
from db import people, permission, queries
from db.service import Service
from pages import _ui, _who
from tests.pages.conftest import ENTRY

PAGES = sorted(path.stem for path in ENTRY.parent.glob("*.py") if not path.stem.startswith("_"))
AUTH = {
    "redirect_uri": "http://localhost/oauth2callback", "cookie_secret": "x" * 32, "client_id": "assay",
    "client_secret": "s", "server_metadata_url": "http://127.0.0.1:9/.well-known/openid-configuration",
}  # fmt: skip


def sit_down(name: str) -> AppTest:
    """A session that works under ``name``, not run yet."""
    app = AppTest.from_file(str(ENTRY), default_timeout=60)
    app.session_state[_ui.REVIEWER] = name
    return app


def signed_in(email: str, **claims: Any) -> AppTest:
    """A session whose provider said that this is ``email``."""
    app = AppTest.from_file(str(ENTRY), default_timeout=60)
    app.secrets["auth"] = AUTH
    app.user = {
        "is_logged_in": True,
        "iss": "https://i",
        "sub": email,
        "email": email,
        "email_verified": True,
        **claims,
    }
    return app


def words(app: AppTest) -> str:
    """All that a page says in Markdown, captions and messages, without the escapes."""
    found = [*app.title, *app.markdown, *app.caption, *app.error, *app.warning, *app.success, *app.info]
    return "\n".join(str(one.value) for one in found).replace("\\", "").replace("\u2060", "")


def test_a_viewer_sees_every_page_and_not_one_asks_the_store_to_change(half_scored_home: Service) -> None:
    """What a page keeps by itself (a distance that was computed, a name that was seen) must not need a role."""
    people.grant(half_scored_home.store, "Vera", "viewer", None)
    app = sit_down("Vera").run()
    for name in PAGES:
        app.switch_page(f"{name}.py").run()
        assert not app.exception, (name, app.exception)
        assert "has the role viewer" not in words(app), name
        assert app.title, name


def test_a_name_is_kept_whatever_its_signature_looks_like(empty_home: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """One signature in a hundred holds "__", which no key of a component may: then no page could be opened."""
    monkeypatch.setattr(_who, "name_token", lambda name: f"{name}__.__")
    assert not sit_down("Vera").run().exception


def test_a_button_is_off_with_the_reason_and_pressing_it_anyway_does_nothing(empty_home: Service) -> None:
    people.grant(empty_home.store, "Vera", "viewer", None)
    app = sit_down("Vera").run()
    button = app.button(key="open-sample")
    assert button.disabled
    assert "needs the role admin" in button.help
    button.proto.disabled = False  # what a browser could send all the same
    button.click().run()
    assert not app.exception
    assert queries.datasets(empty_home.store) == []
    assert not list(empty_home.settings.jobs_path.iterdir())


def test_a_role_that_is_taken_away_holds_for_the_button_that_is_on_screen_already(half_scored_home: Service) -> None:
    """The page was drawn for an admin: the server refuses the press, in words, and the button is off from then on."""
    store = half_scored_home.store
    app = sit_down("Rita").run()
    app.switch_page("people.py").run()
    app.text_input(key="people-new").set_value("Eve").run()
    assert not app.button(key="people-invite").disabled
    people.grant(store, "Rita", "viewer", None, default="admin")
    app.button(key="people-invite").click().run()
    assert not app.exception
    assert "Rita has the role viewer, and an admin is needed" in words(app)
    assert [one["identity"] for one in people.role_changes(store)] == ["Rita"]
    assert app.button(key="people-invite").disabled


def test_without_a_provider_names_are_said_to_be_unverified_and_roles_can_be_given(empty_home: Service) -> None:
    app = sit_down("Ada").run()
    app.switch_page("people.py").run()
    assert "names are not verified" in words(app)
    assert "No role was given yet" in words(app)
    app.text_input(key="people-new").set_value("Grace").run()
    app.button(key="people-invite").click().run()
    assert "Grace is reviewer now" in words(app)
    (change,) = people.role_changes(empty_home.store)
    assert (change["identity"], change["role"], change["changed_by"]) == ("Grace", "reviewer", "Ada")
    app.query_params["person"] = "Grace"
    app.run()
    app.segmented_control(key="people-role-Grace-reviewer").set_value("viewer").run()
    app.button(key="people-give-Grace-viewer").click().run()
    assert people.role_of(empty_home.store, "Grace", "admin") == "viewer"


def test_a_name_without_a_role_sees_no_page(half_scored_home: Service) -> None:
    people.grant(half_scored_home.store, "Mallory", "none", None)
    app = sit_down("Mallory").run()
    assert "You have no access yet" in words(app)
    assert "How the work goes" not in words(app)


def test_with_a_provider_nobody_sees_a_page_before_the_sign_in(half_scored_home: Service) -> None:
    app = signed_in("ada@lab.example")
    app.user = {"is_logged_in": False}
    app.session_state[_ui.REVIEWER] = "Ada"  # a name of before the provider was set up
    for name in ("home", "review", "export"):
        if name == "home":
            app.run()
        else:
            app.switch_page(f"{name}.py").run()
        assert [one.label for one in app.button] == ["Sign in"], name
        assert [one.value for one in app.title] == ["Assay"], name
    assert people.names(half_scored_home.store) == {}


def test_whoever_signs_in_without_a_role_is_told_whom_to_ask(empty_home: Service) -> None:
    people.grant(empty_home.store, "ada@lab.example", "admin", None)
    app = signed_in("grace@lab.example", name="Grace *Hopper*").run()
    assert "You have no access yet" in words(app)
    assert "Admins: ada@lab.example" in words(app)
    assert [one.value for one in app.code] == ["grace@lab.example"]
    (grace,) = (one for one in people.people(empty_home.store) if one["identity"] == "grace@lab.example")
    assert (grace["name"], grace["source"]) == ("Grace *Hopper*", PROVIDER)
    people.grant(empty_home.store, "grace@lab.example", "viewer", "ada@lab.example")
    app.run()
    assert "You have no access yet" not in words(app)


def test_an_email_that_nobody_verified_is_not_that_person(empty_home: Service) -> None:
    people.grant(empty_home.store, "ada@lab.example", "admin", None)
    app = signed_in("ada@lab.example", email_verified=False, sub="1004").run()
    assert "You have no access yet" in words(app)
    assert [one.value for one in app.code] == ["https://i|1004"]


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({**AUTH, "client_secret": ""}, "client_secret"),
        ({key: value for key, value in AUTH.items() if key != "cookie_secret"}, "cookie_secret"),
        ({**AUTH, "cookie_secret": "short"}, "under 32 characters"),
        (AUTH, None),
    ],
)
def test_half_a_provider_is_named_at_the_start(
    section: dict[str, str], says: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_who.st, "secrets", _Secrets({"auth": section}))
    problem = _who.provider_problem()
    assert (problem is None) if says is None else (problem is not None and says in problem)


def test_a_broken_secrets_file_never_means_that_there_is_no_sign_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streamlit takes a file that cannot be parsed for none: the server would have become open to any name."""
    path = tmp_path / "secrets.toml"
    path.write_text("[auth\n")
    broken = _Secrets({})
    monkeypatch.setattr(broken, "load_if_toml_exists", lambda: False, raising=False)
    monkeypatch.setattr(_who.st, "secrets", broken)
    monkeypatch.setattr(_who.st, "get_option", lambda _name: [str(path)])
    assert "cannot be read as TOML" in str(_who.provider_problem())
    _who.settle([""])  # the server started with a provider, and the file broke later
    try:
        assert _who.source() == PROVIDER
    finally:
        _who.settle(None)
    assert _who.source() != PROVIDER


class _Secrets(dict[str, Any]):
    def load_if_toml_exists(self) -> bool:
        return True


def test_tests_and_the_scheduler_act_for_the_server() -> None:
    assert permission.acting() is None
