"""`shunt dlq` on real Kafka: real processes, killed and doubled, and a count that shares no code with them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient

from stream_app.cli.dlq_reading import read_receipts
from stream_app.codec import Cause, dead_letter, decode_dead_letter
from stream_app.errors import StartError
from stream_app.events import Source
from stream_app.kafka.connection import Connection
from stream_app.kafka.topics import create, plan
from tests.conftest import run_apart
from tests.kafka.reading import produce, read_all
from tests.settings_file import write_settings

from .command import Ran, command, environment, shunt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from confluent_kafka import Message

    from stream_app.local.stack import Stack

PARTITIONS = 3
WAIT_S = 60.0
NOT_UTF8 = b"\xff\xfe\x80bytes"
CAUSES = ("not_json", "missing_text")
ROOMY = 1_000_000

Headers = list[tuple[str, bytes | None]]


class Dlq:
    """A pipeline's topics, dead letters buried in them, and the command line."""

    def __init__(self, folder: Path, stack: Stack, name: str) -> None:
        self.folder, self.stack, self.name = folder, stack, name
        self.servers = stack.bootstrap_servers
        self.dlq, self.replays = f"{name}-dlq", f"{name}-dlq-replays"
        kafka = self.settle().kafka
        run_apart(create(Connection(kafka), plan(kafka, None, partitions=PARTITIONS)))
        self.processes: list[subprocess.Popen[bytes]] = []

    def settle(self, **tables: Any) -> Any:
        """Writes the settings; the tables that tests change."""
        llm = {"requests_per_minute": 1_000_000, "tokens_per_minute": 1_000_000_000}
        return write_settings(
            self.folder,
            self.name,
            bootstrap_servers=self.servers,
            triton=self.stack.triton_grpc,
            llm_base_url=self.stack.llm_base_url,
            endpoint=llm,
            web={"port": 0},
            **tables,
        )

    # Dead letters

    def bury(self, count: int, *, begin: int = 0) -> None:
        """`count` letters of input records, their causes in turn, one offset after another."""
        letters = []
        for number in range(begin, begin + count):
            headers: Headers = [("n", b"%d" % number), ("n", None)]
            cause = Cause("decode", CAUSES[number % 2], "UnreadableRecord", "no")
            source = Source(self.name, number % PARTITIONS, number, 0)
            letters.append((dead_letter(b"k%d" % number, b"v%d" % number, headers, source, cause, ROOMY), source))
        self.write(letters)

    def write(self, letters: Sequence[tuple[Any, Source]]) -> None:
        """Letters as a lane writes them: each in the partition of its source."""
        producer = Producer({"bootstrap.servers": self.servers, "linger.ms": 5})
        for letter, source in letters:
            producer.produce(
                self.dlq, letter.value, letter.key, partition=source.partition, headers=[*letter.headers]
            )
            producer.poll(0)
        assert producer.flush(30) == 0

    # Commands

    def shunt(self, *arguments: str) -> Ran:
        """`shunt dlq ...` to its end."""
        return shunt("dlq", *arguments, cwd=self.folder)

    def lines(self, *arguments: str, status: int = 0) -> list[dict[str, Any]]:
        """What it prints for programs."""
        ran = self.shunt(*arguments, "--json")
        assert ran.status == status, ran.err
        return [json.loads(line) for line in ran.out.splitlines()]

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """`shunt ...` as a process that goes on."""
        return self._popen(command(*arguments))

    def struck(
        self, how: str, point: str, number: int, *arguments: str, without: str = ""
    ) -> subprocess.Popen[bytes]:
        """`shunt dlq replay` that is struck down at a point; a hundred letters a transaction."""
        line = [sys.executable, "-m", "tests.cli.dlq_struck", how, point, str(number), "dlq", "replay", *arguments]
        return self._popen(line, WITHOUT=without)

    def _popen(self, line: list[str], **variables: str) -> subprocess.Popen[bytes]:
        env = environment(**variables)
        with (self.folder / "out.log").open("ab") as log:
            process = subprocess.Popen(line, cwd=self.folder, env=env, stdout=log, stderr=subprocess.PIPE)
        self.processes.append(process)
        return process

    # What came of it

    def replayed(self, topic: str | None = None) -> list[Message]:
        """The records of the topic, the input if none is named, that were sent back."""
        found = read_all(self.servers, topic or self.name)
        return [message for message in found if "shunt-replay-of" in dict(message.headers() or [])]

    def counted(self) -> Counter[str]:
        """How often each letter was sent back, by its number; its bytes are looked at on the way."""
        counts: Counter[str] = Counter()
        for message in self.replayed():
            number = dict(message.headers()[:1])["n"].decode()
            assert message.headers()[:2] == [("n", number.encode()), ("n", None)]
            assert [name for name, _ in message.headers()[2:]] == ["shunt-replay-of", "shunt-replay-attempt"]
            assert (message.key(), message.value()) == (f"k{number}".encode(), f"v{number}".encode())
            assert message.partition() == int(number) % PARTITIONS
            counts[number] += 1
        return counts

    def each_once(self, count: int) -> None:
        """Every letter was sent back exactly once."""
        assert self.counted() == Counter(str(number) for number in range(count))


@pytest.fixture
def dlq(tmp_path: Path, stack: Stack, unique_name: Callable[[str], str]) -> Iterator[Dlq]:
    """A pipeline whose topics exist and are empty."""
    made = Dlq(tmp_path, stack, unique_name("reviews"))
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


# What is sent


def test_a_topic_without_dead_letters_says_so(dlq: Dlq) -> None:
    """Nothing to do is no failure, and nothing is made for it."""
    for arguments in (("list",), ("show",), ("replay",), ("replay", "--dry-run"), ("list", "--cause", "not_json")):
        ran = dlq.shunt(*arguments)
        assert (ran.status, ran.err) == (0, "")
        assert ran.out == f"no dead letters in {dlq.dlq}\n"
        assert dlq.shunt(*arguments, "--json").out == ""
    assert dlq.replays not in AdminClient({"bootstrap.servers": dlq.servers}).list_topics(timeout=10).topics
    dlq.bury(1)
    assert dlq.shunt("replay", "--cause", "nobody").out == f"no such dead letters in {dlq.dlq}\n"


def test_every_byte_comes_back(dlq: Dlq) -> None:
    """Tombstones, null and empty keys, headers that stand twice, are null or no text: sent back as they came."""
    originals: list[tuple[bytes | None, bytes | None, Headers]] = [
        (b"k", b"no json", []),
        (None, b"v", [("a", b"1"), ("a", b"1"), ("a", b"2")]),
        (b"", b"", [("", b""), ("b", None)]),
        (NOT_UTF8, NOT_UTF8, [("c", NOT_UTF8), ("d", bytes(range(256)))]),
        (b"gone", None, [("e", b"tombstone")]),
        (None, None, []),
        (b"k", b"\0" * 40_000, [("ü", "ß".encode())]),
        (b"k", b"forwarded", [("shunt-replay-of", b"mine"), ("shunt-cause", b"mine"), ("truncated", b"true")]),
    ]
    cause = Cause("decode", "not_json", "UnreadableRecord", "no")
    source = Source(dlq.name, 1, 884, 0)
    dlq.write([(dead_letter(key, value, headers, source, cause, ROOMY), source) for key, value, headers in originals])
    assert dlq.shunt("replay").status == 0
    sent = dlq.replayed()
    assert [(message.key(), message.value(), message.headers()[:-2]) for message in sent] == originals
    assert [message.headers()[-2:] for message in sent] == [
        [("shunt-replay-of", f"{dlq.dlq}/1/{offset}".encode()), ("shunt-replay-attempt", b"1")]
        for offset in range(len(originals))
    ]
    assert {message.partition() for message in sent} == {1}


def test_filters_are_the_same_for_list_show_and_replay(dlq: Dlq) -> None:
    """What is listed is what is shown, what a dry run names, and what is sent."""
    dlq.bury(12)
    time.sleep(1.1)  # the time filters below tell the two burials apart to the second
    middle = int(time.time())
    dlq.bury(6, begin=12)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(middle))

    def found(*arguments: str, key: str = "offset") -> list[tuple[int, int]]:
        return sorted((line["partition"], line[key]) for line in dlq.lines(*arguments))

    for filters, count in (
        (["--cause", "not_json"], 9),
        (["--cause", "not_json", "--cause", "missing_text"], 18),
        (["--stage", "classify"], 0),
        (["--since", stamp], 6),
        (["--until", stamp, "--stage", "decode"], 12),
        (["--since", "1h", "--key", "k7"], 1),
    ):
        listed = found("list", *filters)
        assert len(listed) == count
        assert found("show", *filters, "--limit", "100") == listed
        assert found("replay", "--dry-run", *filters) == listed
    assert dlq.replayed() == []
    assert {line["outcome"] for line in dlq.lines("replay", "--since", stamp)} == {"sent"}
    assert dlq.counted() == Counter(str(number) for number in range(12, 18))
    lines = dlq.lines("replay", "--cause", "not_json")
    assert Counter(line["outcome"] for line in lines) == {"sent": 6, "replayed_before": 3}
    assert len(dlq.lines("replay", "0/0", "1/0", "--limit", "1")) >= 1
    assert dlq.shunt("replay").status == 0
    dlq.each_once(18)
    assert all(line["replayed_at"] for line in dlq.lines("list"))
    assert dlq.shunt("replay", "0/999").status == 1
    assert dlq.shunt("replay").out == "sent: nothing; 18 replayed before\n"
    dlq.each_once(18)


def test_a_dry_run_names_what_would_be_sent_and_sends_nothing(dlq: Dlq) -> None:
    """The table names letter, target, attempt, cause, key and size; no topic is made."""
    dlq.bury(3)
    ran = dlq.shunt("replay", "--dry-run")
    assert ran.status == 0
    assert f"{dlq.name}/2" in ran.out
    assert ran.out.endswith(f"would be sent: 3 to {dlq.name}\n")
    assert dlq.replayed() == []
    assert dlq.replays not in AdminClient({"bootstrap.servers": dlq.servers}).list_topics(timeout=10).topics


def test_a_limit_sends_the_next_so_many_each_time(dlq: Dlq) -> None:
    """A few first, to see whether they pass, and then the rest."""
    dlq.bury(10)
    for _ in range(3):
        sent = [line for line in dlq.lines("replay", "--limit", "4") if line["outcome"] == "sent"]
        assert len(sent) in {4, 2}
    dlq.each_once(10)


def test_what_cannot_go_back_is_refused_and_the_rest_is_sent(dlq: Dlq) -> None:
    """Each with its reason; the exit status is 1 and the one line on standard error says what to do."""
    source = Source(dlq.name, 0, 5, 0)
    cause = Cause("decode", "not_json", "UnreadableRecord", "no")
    dlq.write(
        [
            (dead_letter(b"k", b"x" * 3_000, (), source, cause, 1_500), source),
            (dead_letter(b"k", b"v", (), Source("elsewhere", 0, 5, 0), cause, ROOMY), source),
            (dead_letter(b"k", b"v", (), Source(f"{dlq.name}-escalations", 0, 5, 0), cause, ROOMY), source),
        ]
    )
    dlq.bury(2, begin=0)
    ran = dlq.shunt("replay")
    assert ran.status == 1
    assert ran.err.count("\n") == 1
    assert ran.err.startswith("shunt: 3 of 5 dead letters were not sent (")
    assert f"the whole record stands at {dlq.name}/0/5" in ran.out
    assert "neither input nor escalation topic" in ran.out
    assert "no escalation" in ran.out
    dlq.each_once(2)
    again = dlq.lines("replay", status=1)
    assert Counter(line.get("why", line["outcome"]) for line in again) == {
        "truncated": 1, "other_topic": 1, "no_escalation": 1, "replayed_before": 2,
    }  # fmt: skip


def test_records_that_are_no_dead_letters_hinder_nothing(dlq: Dlq) -> None:
    """Something else wrote to the topic: it is counted, passed over, and shown for what it is."""
    produce(dlq.servers, dlq.dlq, [b"noise"])
    dlq.bury(2)
    assert "1 records beside them are no dead letters" in dlq.shunt("list").out
    assert dlq.shunt("replay").status == 0
    dlq.each_once(2)
    ran = dlq.shunt("show", "0/0")
    assert ran.status == 1
    assert "is no dead letter" in ran.err


def test_receipts_go_when_their_letters_have_expired(dlq: Dlq) -> None:
    """The topic of receipts holds one for each letter that is there still, and no more."""
    dlq.bury(9)
    assert dlq.shunt("replay").status == 0
    admin = AdminClient({"bootstrap.servers": dlq.servers})
    for future in admin.delete_records([Place(dlq.dlq, 0, 2)]).values():
        future.result(10)
    dlq.bury(1, begin=9)
    assert dlq.shunt("replay").status == 0
    last = {message.key(): message.value() for message in read_all(dlq.servers, dlq.replays)}
    gone = {key for key, value in last.items() if value is None}
    assert gone == {b"0/0", b"0/1"}
    assert len(last) == 10 + 1  # a receipt or its end for each letter, and the opening record
    dlq.each_once(10)


def test_a_topic_of_receipts_that_forgets_is_refused(dlq: Dlq, make_topic: Callable[..., str]) -> None:
    """With `cleanup.policy=delete` a letter could be sent twice once its receipt has expired."""
    make_topic(name=dlq.replays)
    dlq.bury(1)
    ran = dlq.shunt("replay")
    assert ran.status == 1
    assert "cleanup.policy=compact" in ran.err
    assert dlq.replayed() == []


def test_receipts_that_cannot_be_found_are_never_taken_for_none(dlq: Dlq) -> None:
    """A broker that does not know their topic yet fails the replay: without receipts all would be sent again."""
    with pytest.raises(StartError):
        run_apart(read_receipts(Connection(dlq.settle().kafka), dlq.replays, b"opened"))
    assert run_apart(read_receipts(Connection(dlq.settle().kafka), dlq.replays)) == {}


# At most once


@pytest.mark.parametrize(
    ("point", "number", "at_least"),
    [
        ("opened", 0, 0),
        ("sent", 0, 0),
        ("sent", 1, 0),
        ("sent", 3, 100),
        ("committing", 2, 50),
        ("committed", 2, 100),
    ],
)
def test_killed_at_a_point_and_run_again(dlq: Dlq, point: str, number: int, at_least: int) -> None:
    """kill -9 anywhere, with a filter that leaves gaps: then each letter is sent exactly once, of the others none."""
    dlq.bury(600)
    struck = dlq.struck("SIGKILL", point, number, "--cause", "not_json")
    assert struck.wait(WAIT_S) == -signal.SIGKILL
    between = dlq.counted()
    assert at_least <= len(between) < 300
    assert dlq.shunt("replay", "--cause", "not_json").status == 0
    assert dlq.counted() == Counter(str(number) for number in range(0, 600, 2))
    assert dlq.shunt("replay").status == 0
    dlq.each_once(600)


@pytest.mark.parametrize("seed", [5705, 20261120])
def test_killed_at_any_time_until_it_is_done(dlq: Dlq, seed: int) -> None:
    """Killed and started again, wherever it was: no letter is sent twice, and in the end each was sent."""
    rng = random.Random(seed)
    print(f"seed {seed}")
    dlq.bury(3_000)
    first = dlq.struck("SIGKILL", "nowhere", 0)
    while not dlq.replayed() and first.poll() is None:
        time.sleep(0.05)
    first.kill()
    for _ in range(6):
        process = dlq.struck("SIGKILL", "nowhere", 0)
        try:
            process.wait(rng.uniform(0.8, 3.0))
        except subprocess.TimeoutExpired:
            process.kill()
        counts = dlq.counted()
        assert set(counts.values()) <= {1}
    assert dlq.shunt("replay").status == 0
    dlq.each_once(3_000)


def stopped(dlq: Dlq, point: str, without: str = "") -> subprocess.Popen[bytes]:
    """A replay that stands still at its second hundred of letters."""
    process = dlq.struck("SIGSTOP", point, 2, without=without)
    until(lambda: _state(process.pid) == "T", "the replay stands still")
    return process


@pytest.mark.parametrize(
    ("point", "before", "without"), [("sent", 100, ""), ("committed", 200, ""), ("committed", 200, "fence")]
)
def test_a_stalled_replay_that_wakes_up_sends_nothing_twice(dlq: Dlq, point: str, before: int, without: str) -> None:
    """Another began meanwhile: it is fenced, or knows that it stood still for too long; one line, and status 1."""
    dlq.bury(600)
    stalled = stopped(dlq, point, without)
    assert len(dlq.counted()) == before
    assert dlq.shunt("replay").status == 0
    dlq.each_once(600)
    stalled.send_signal(signal.SIGCONT)
    _, said = stalled.communicate(timeout=WAIT_S)
    assert stalled.returncode == 1
    assert said.decode().count("\n") == 1
    assert "another replay" in said.decode()
    dlq.each_once(600)


def test_without_both_safeguards_the_count_finds_doubles(dlq: Dlq) -> None:
    """What the test above shows is their work: with an id of its own, and without the watch, it goes on sending."""
    dlq.bury(600)
    stalled = stopped(dlq, "committed", "fence+pause")
    assert dlq.shunt("replay").status == 0
    stalled.send_signal(signal.SIGCONT)
    stalled.communicate(timeout=WAIT_S)
    assert max(dlq.counted().values()) == 2


def test_without_one_transaction_the_count_finds_doubles(dlq: Dlq) -> None:
    """Receipts that commit by themselves are missing for what was sent when the process was killed."""
    dlq.bury(600)
    struck = dlq.struck("SIGKILL", "between", 2, without="together")
    assert struck.wait(WAIT_S) == -signal.SIGKILL
    assert dlq.shunt("replay").status == 0
    assert max(dlq.counted().values()) == 2


def test_several_at_once_send_each_letter_once(dlq: Dlq) -> None:
    """The last to begin does the work, the others say that they were overtaken."""
    dlq.bury(2_000)
    at_once = [dlq.struck("SIGKILL", "nowhere", 0) for _ in range(3)]
    ended = [(process.communicate(timeout=WAIT_S)[1].decode(), process.returncode) for process in at_once]
    assert {status for _, status in ended} <= {0, 1}
    assert 0 in {status for _, status in ended}
    assert all("another replay" in said for said, status in ended if status == 1), ended
    dlq.each_once(2_000)


def _state(pid: int) -> str:
    """`T` for a stopped process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# With the lanes


def outcomes(dlq: Dlq) -> Counter[str]:
    """How many outcomes each source has, as docs/delivery.md counts them."""
    found: Counter[str] = Counter()
    for topic in (f"{dlq.name}-decisions", dlq.dlq):
        for message in read_all(dlq.servers, topic):
            headers = dict(message.headers() or [])
            if topic == dlq.dlq or headers.get("kind") in {b"final", None}:
                found[headers["shunt-source"].decode()] += 1
    return found


def until(true: Callable[[], object], what: str) -> None:
    """Waits until it is so."""
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline, f"not within {WAIT_S:.0f} s: {what}"
        time.sleep(0.2)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Lets a worker drain."""
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=WAIT_S)
    assert process.returncode == 0


def test_what_dies_again_is_counted_until_it_is_refused(dlq: Dlq) -> None:
    """Three replays of a record that is no event, each a new record with an outcome of its own; then it is forced."""
    worker = dlq.start("run", "classify")
    producer = Producer({"bootstrap.servers": dlq.servers})
    producer.produce(dlq.name, b"no json", None, partition=1, headers=[("a", NOT_UTF8), ("a", None)])
    producer.flush(10)

    def letters() -> list[Message]:
        return read_all(dlq.servers, dlq.dlq)

    for attempts in range(4):
        until(lambda died=attempts + 1: len(letters()) == died, f"death {attempts + 1}")
        assert [line["attempts"] for line in dlq.lines("list")] == [*range(attempts + 1)]
        ran = dlq.shunt("replay")
        if attempts < 3:
            assert ran.status == 0, ran.err
    assert ran.status == 1
    assert ran.err.startswith("shunt: 1 of 4 dead letters were not sent (1 attempts)")
    assert "--force" in ran.err
    assert dlq.shunt("replay", "--force").status == 0
    until(lambda: len(letters()) == 5, "death after --force")
    for message in letters():
        original = decode_dead_letter(message.headers()).original
        assert (message.key(), message.value(), original[:2]) == (None, b"no json", (("a", NOT_UTF8), ("a", None)))
    assert outcomes(dlq) == Counter(f"{dlq.name}/1/{message.offset()}" for message in read_all(dlq.servers, dlq.name))
    stop(worker)


def test_an_escalation_the_slow_lane_could_not_read_gets_its_one_outcome(dlq: Dlq) -> None:
    """Wrong text fields on the slow lane alone: its letters go back to the escalation topic once they are corrected.

    Each input record then has one final, under its own source; none is made a second record of.
    """
    fast = dlq.start("run", "classify")
    values = [json.dumps({"id": f"r{number}", "text": f"unsure {number}"}).encode() for number in range(6)]
    produce(dlq.servers, dlq.name, list(values), partitions=PARTITIONS)
    escalations = f"{dlq.name}-escalations"
    until(lambda: len(read_all(dlq.servers, escalations)) == 6, "six escalations")
    stop(fast)
    dlq.settle(events={"text_fields": ["body"]})
    slow = dlq.start("run", "escalate")
    until(lambda: len(dlq.lines("list", "--stage", "escalate", "--cause", "missing_text")) == 6, "six letters")
    stop(slow)

    dlq.settle()
    sent = dlq.lines("replay")
    assert {(line["outcome"], line["to"]["topic"]) for line in sent} == {("sent", escalations)}
    assert dlq.replayed() == []
    slow = dlq.start("run", "escalate")
    decisions = f"{dlq.name}-decisions"
    until(lambda: len(read_all(dlq.servers, decisions)) == 6, "six finals")
    stop(slow)
    told = [dict(message.headers())["shunt-source"].decode() for message in read_all(dlq.servers, decisions)]
    records = read_all(dlq.servers, dlq.name)
    assert Counter(told) == Counter(f"{dlq.name}/{record.partition()}/{record.offset()}" for record in records)
    assert dlq.shunt("replay").out == "sent: nothing; 6 replayed before\n"


def test_a_bar_is_drawn_on_a_terminal_only(dlq: Dlq) -> None:
    """On standard error; what a program reads stands on standard output alone."""
    dlq.bury(30)
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        command("dlq", "replay", "--json"),
        cwd=dlq.folder, env=environment(TERM="xterm"), stdout=subprocess.PIPE, stderr=theirs,
    )  # fmt: skip
    dlq.processes.append(process)
    out, _ = process.communicate(timeout=WAIT_S)
    os.close(theirs)
    drawn = os.read(ours, 65_536).decode()
    os.close(ours)
    assert process.returncode == 0
    assert "Replaying" in drawn
    assert {json.loads(line)["outcome"] for line in out.splitlines()} == {"sent"}
    assert len(out.splitlines()) == 30
    assert dlq.shunt("replay", "--json").err == ""
