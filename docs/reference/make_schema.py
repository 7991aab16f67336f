"""Write the JSON schemas of what the commands write, from the records themselves."""

from __future__ import annotations

import json
from pathlib import Path

from kinprint.types import Comparison, Inspection

HERE = Path(__file__).parent
SCHEMAS = {"comparison": Comparison, "inspection": Inspection}


def schema(name: str) -> str:
    """Return one schema as text."""
    return json.dumps(SCHEMAS[name].model_json_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    for name in SCHEMAS:
        (HERE / f"{name}.schema.json").write_text(schema(name), encoding="utf-8")
