"""The form of a training setting: its presets, every hyper-parameter, and what stands against a base model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest

from core.finetune.settings import FinetuneSettings, paper_preset, sample_preset
from core.scoring import DEMO_STUDENT
from db.service import Service
from pages import _finetune_form
from tests.core import tiny_models


def page(default: dict[str, Any] | None = None) -> AppTest:
    """The form alone, what it returned shown as JSON."""

    def body(default):
        import json

        import streamlit as st

        from core.finetune.settings import FinetuneSettings
        from db import service
        from pages import _finetune_form

        given = None if default is None else FinetuneSettings.from_params(default)
        found = _finetune_form.form(service.current(), key="f", default=given)
        st.code("null" if found is None else json.dumps(found.to_params()), language="json")

    app = AppTest.from_function(body, args=(default,), default_timeout=60)
    app.run()
    assert not app.exception, app.exception
    return app


def found(app: AppTest) -> FinetuneSettings | None:
    params = json.loads(app.code[-1].value)
    return None if params is None else FinetuneSettings.from_params(params)


def field(app: AppTest, name: str, preset: str = "paper") -> Any:
    kinds = (app.selectbox, app.number_input, app.checkbox, app.text_input, app.segmented_control)
    return next(one for kind in kinds for one in kind if one.key == f"f-{preset}-{name}")


def put_base(app: AppTest, folder: Path) -> None:
    """Type a base: AppTest can choose among the options only, so it is added as the browser does."""
    field(app, "base").options.append(str(folder))
    field(app, "base").set_value(str(folder))
    app.run()
    assert not app.exception
    field(app, "base").options.append(str(folder))


def said(app: AppTest) -> str:
    kinds = ("markdown", "caption", "error")
    return "\n".join(str(one.value) for kind in kinds for one in getattr(app, kind)).replace("\\", "")


def test_it_begins_with_the_papers_setting(empty_home: Service) -> None:
    app = page()
    assert found(app) == paper_preset(str(DEMO_STUDENT))
    assert "fits" in said(app)


def test_every_hyper_parameter_has_a_field(empty_home: Service) -> None:
    app = page()
    for one in dataclasses.fields(FinetuneSettings):
        assert field(app, one.name) is not None


def test_the_quick_preset_is_that_of_the_demo_student(empty_home: Service) -> None:
    app = page()
    app.segmented_control(key="f-preset").set_value("sample").run()
    assert not app.exception
    assert found(app) == sample_preset(str(DEMO_STUDENT))


def test_a_suggestion_comes_first_and_what_was_used_last_is_kept(empty_home: Service) -> None:
    last = dataclasses.replace(paper_preset(str(DEMO_STUDENT)), lora_r=16, keep_adapter=True)
    _finetune_form.remember(empty_home, last)
    given = dataclasses.replace(sample_preset(str(DEMO_STUDENT)), epochs=2.0)
    app = page(given.to_params())
    assert found(app) == given
    app.segmented_control(key="f-preset").set_value("last").run()
    assert found(app) == last


def test_a_setting_of_a_machine_with_a_gpu_begins_on_the_cpu_here(empty_home: Service) -> None:
    given = dataclasses.replace(paper_preset(str(DEMO_STUDENT)), device="cuda")
    empty_home.scheduler._gpus = ()
    settings = found(page(given.to_params()))
    assert settings is not None
    assert settings.device == "cpu"


def test_a_value_that_does_not_do_is_told_in_words(empty_home: Service) -> None:
    app = page()
    field(app, "micro_batch_size").set_value(3).run()
    assert found(app) is None
    assert "does not divide batch_size 8" in said(app)


def test_a_base_without_a_chat_template_is_refused_for_the_chat_template(empty_home: Service, tmp_path: Path) -> None:
    app = page()
    folder = tiny_models.save(tmp_path / "llama", "llama")
    field(app, "max_length").set_value(64)
    put_base(app, folder)
    settings = found(app)
    assert settings is not None
    assert settings.base == str(folder)
    field(app, "template").set_value("chat").run()
    assert found(app) is None
    assert "has no chat template" in said(app)


def test_a_folder_that_is_no_model_is_refused(empty_home: Service, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    app = page()
    put_base(app, tmp_path / "nothing")
    assert found(app) is None


def test_the_summary_names_what_differs_between_settings() -> None:
    words = _finetune_form.summary(paper_preset(str(DEMO_STUDENT)))
    assert words.startswith("Demo student (bundled) · 8-bit (bitsandbytes) · 3 epochs · batch 8")
