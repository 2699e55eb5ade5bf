"""The JSON Schema of all that travels (docs/wire.schema.json)."""

from __future__ import annotations

import json
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter

from inspector.wire.messages import (
    Command,
    HeatmapMessage,
    ReplyMessage,
    StatusMessage,
    VerdictMessage,
)
from inspector.wire.queries import AnswerMessage, Query

_SENT: Final[dict[str, type[BaseModel]]] = {
    "verdict": VerdictMessage,
    "heatmap": HeatmapMessage,
    "status": StatusMessage,
    "reply": ReplyMessage,
    "answer": AnswerMessage,
}
_ASKED: Final[dict[str, TypeAdapter[Any]]] = {
    "command": TypeAdapter(Command),
    "query": TypeAdapter(Query),
}


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema (2020-12) of each message, by its topic's kind.

    And of ``command`` and ``reply``, ``query`` and ``answer``.
    """
    schemas = {
        kind: model.model_json_schema(by_alias=True, mode="serialization")
        for kind, model in _SENT.items()
    }
    schemas |= {kind: adapter.json_schema(by_alias=True) for kind, adapter in _ASKED.items()}
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {kind: dialect | schema for kind, schema in schemas.items()}


def dump_schemas() -> str:
    """The schemas as one JSON document, as docs/wire.schema.json holds it."""
    return json.dumps(json_schemas(), indent=2, ensure_ascii=False) + "\n"
