"""The prompt by the settings, in the form that each endpoint takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_app.errors import SettingsError
from stream_app.escalate.answer_form import AnswerForm
from stream_app.escalate.enrichment import Enrichment
from stream_app.escalate.prompt import INSTRUCTIONS, Prompter, PromptOptions

if TYPE_CHECKING:
    from stream_app.settings import Settings


def prompter_of(settings: Settings) -> Prompter:
    """The prompt as the first endpoint gets it. SettingsError where the instructions cannot be read."""
    return _prompter(settings, json_schema=settings.llm.endpoints[0].json_schema)


def prompters_of(settings: Settings) -> tuple[Prompter, ...]:
    """The prompter of each endpoint, the same one for those that take the same form. Raises as `prompter_of` does."""
    wanted = [endpoint.json_schema for endpoint in settings.llm.endpoints]
    by_form = {json_schema: _prompter(settings, json_schema=json_schema) for json_schema in dict.fromkeys(wanted)}
    return tuple(by_form[json_schema] for json_schema in wanted)


def _prompter(settings: Settings, *, json_schema: bool) -> Prompter:
    llm = settings.llm
    options = PromptOptions(
        instructions=_instructions(settings),
        descriptions={task.name: task.descriptions for task in settings.tasks},
        hint=llm.hint,
        form=AnswerForm(llm.reason, Enrichment(llm.enrichment) if llm.enrichment else None),
        json_schema=json_schema,
        text_tokens_max=llm.text_tokens_max,
        output_tokens_max=llm.output_tokens_max,
    )
    return Prompter(options, [task.name for task in settings.tasks])


def _instructions(settings: Settings) -> str:
    """The user's file, else ours."""
    file = settings.llm.instructions_file
    if file is None:
        return INSTRUCTIONS
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"the instructions {file} cannot be read ({error})", advice="correct llm.instructions_file"
        ) from error
    if not text.strip():
        raise SettingsError(f"the instructions {file} are empty", advice="write them, or leave the setting out")
    return text
