"""``python -m tests.e2e.scenarios`` writes docs/scenarios.md, the list of all scenarios."""

from __future__ import annotations

from tests.e2e.scenarios.document import DOCUMENT, document_text

DOCUMENT.write_text(document_text(), encoding="utf-8")
