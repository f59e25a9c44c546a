"""`shunt distill --from-topic`: the labels that stand on the topic, without what was erased or audited."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import pytest

from stream_app.cli.feedback_topic import FeedbackRead
from stream_app.codec import encode_feedback
from stream_app.errors import UnreadableRecord
from stream_app.training.gated import gate
from stream_app.training.held_out import LEARNED, read_held_out
from tests.cli.command import shunt
from tests.kafka.reading import produce
from tests.messages.test_schemas import GOOD
from tests.settings_file import write_settings
from tests.training.test_distill import BASE, FEEDBACK, HELD
from tests.training.test_gated import said

AUDIT = json.loads(next(path for path in GOOD if path.parent.name == "audit-result").read_text())


def audit_of(event_id):
    """The result of an audit of that event."""
    return json.dumps({**AUDIT, "id": event_id}).encode()


def folded(*records):
    """What is read of a feedback topic with these rows; a string erases that event."""
    found = FeedbackRead()
    for record in records:
        if isinstance(record, str):
            found.fold_feedback(record.encode(), None, said(1, "").source.timestamp_ms)
        else:
            found.fold_feedback(*encode_feedback(record)[:2])
    return found


def test_what_was_erased_is_not_read():
    """A null value takes away what stands under the key, and what comes later of an event from before it; nothing of
    an event that came after it, and nothing of another's."""
    one, two = said(1, "a lamp"), said(2, "a kettle")
    source = msgspec.structs.replace(one.source, timestamp_ms=one.source.timestamp_ms + 1)
    again = replace(said(1, "a novel"), source=source)
    assert folded(one, two, "r-1", again).feedback == [two, again]
    assert folded("r-1", one).feedback == []


def test_an_erased_event_teaches_no_more_from_a_file_either():
    """Its rows in files, and copies of its text there, are held out."""
    kept = [said(1, "good lamp"), said(2, "Good lamp!"), said(3, "late kettle")]
    found = gate(BASE, kept, [], "mood", folded("r-1").held_out)
    assert [lesson.row.id for lesson in found.curriculum.lessons] == ["r-3"]


def test_what_cannot_be_read_is_counted_and_an_audit_that_cannot_be_read_ends_it():
    """A label less is a label less; an audit less would let an audited event teach."""
    found = folded(said(1, "a lamp"))
    found.fold_feedback(b"r-9", b"no JSON")
    assert (len(found.feedback), found.unreadable) == (1, 1)
    found.fold_audit(audit_of("r-1"))
    assert found.held_out.holds_id("r-1")
    with pytest.raises(UnreadableRecord):
        found.fold_audit(b"no JSON")


def test_from_the_topic_to_a_version(stack, make_topic, unique_name, tmp_path):
    """Real Kafka: what stands teaches; an erased event, an audited one and copies of its text do not."""
    name = unique_name("moods")
    make_topic(name=f"{name}-feedback")
    make_topic(name=f"{name}-audit-results")
    erased, audited = FEEDBACK[0], FEEDBACK[1]
    copy = replace(audited, id="another", text=audited.text.upper())
    rows = [encode_feedback(row)[:2] for row in (*FEEDBACK, copy)]
    keys, values = zip(*rows, (erased.id.encode(), None), strict=True)
    produce(stack.bootstrap_servers, f"{name}-feedback", list(values), keys=list(keys))
    produce(stack.bootstrap_servers, f"{name}-audit-results", [audit_of(audited.id)])
    write_settings(tmp_path, name, bootstrap_servers=stack.bootstrap_servers, triton="127.0.0.1:9")
    lines = [json.dumps({"id": row.id, "text": row.text, "label": row.label}) for row in BASE]
    (tmp_path / "base.jsonl").write_text("\n".join(lines))
    (tmp_path / "held.jsonl").write_text("".join(json.dumps({"id": own}) + "\n" for own, _ in HELD.pairs))
    options = ("--task", "mood", "--base", "base.jsonl", "--held-out", "held.jsonl", "--out", "models")
    done = shunt("distill", "--from-topic", *options, cwd=tmp_path)
    assert done.status == 0, done.err
    learned = read_held_out(tmp_path / "models" / "mood_fast" / "1" / LEARNED)
    for row in (erased, audited, copy):
        assert not learned.holds_id(row.id)
        assert not learned.holds_text(row.text)
    assert sum(learned.holds_id(row.id) for row in FEEDBACK) >= 0.8 * len(FEEDBACK)
    nothing = shunt("distill", *options, cwd=tmp_path)
    assert nothing.status == 2
    assert "name files of feedback, or --from-topic" in nothing.err
