"""A fake teacher whose answers differ each time, as those of a teacher that samples do."""

from __future__ import annotations

import json
from typing import Any, Self

from tests.fake_teacher import FakeTeacher, completion


class ReferenceTeacher(FakeTeacher):
    """Answers with "Answer N to: " and the first words of what was asked; N counts the times it was asked so.

    Its faults are those of :class:`FakeTeacher`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.times: dict[str, int] = {}
        usual: Any = self._server.RequestHandlerClass
        teacher = self

        class Handler(usual):
            def _reply(self, fault: str, body: dict[str, Any]) -> None:
                if fault != "ok":
                    super()._reply(fault, body)
                    return
                question = body["messages"][-1]["content"]
                with teacher._lock:
                    teacher.times[question] = number = teacher.times.get(question, 0) + 1
                text = f"Answer {number} to: {question[:40]}"
                self._send(200, json.dumps(json.loads(completion(text, body=body))))

        self._server.RequestHandlerClass = Handler

    def __enter__(self) -> Self:
        super().__enter__()
        return self
