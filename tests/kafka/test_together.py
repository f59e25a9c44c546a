"""A group over several topics: every partition has one owner, and equal numbers have the same."""

from __future__ import annotations

from collections import Counter

from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from stream_app.kafka.together import assignor, following

LEAD, OTHER = "shop-escalations", "shop-parked"


class Topics:
    """The cluster, as an assignor sees it."""

    def __init__(self, **counts: int) -> None:
        self.counts = {name.replace("_", "-"): count for name, count in counts.items()}

    def topics(self) -> set[str]:
        return set(self.counts)

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return set(range(self.counts[topic])) if topic in self.counts else None


class Group:
    """Members that come and go, each with the memory its own assignor keeps, and whoever leads deals out."""

    def __init__(self, cluster: Topics) -> None:
        self.cluster = cluster
        self.members: dict[str, tuple[type, list[str]]] = {}
        self.owned: dict[str, set[TopicPartition]] = {}
        self.generation = 0

    def join(self, name: str, *, lead: str | None = LEAD, topics: tuple[str, ...] = (LEAD, OTHER)) -> None:
        self.members[name] = (assignor(lead), list(topics))

    def rebalance(self, leader: str | None = None) -> None:
        self.generation += 1
        told = {
            name: ConsumerProtocolMemberMetadata.decode(mine.metadata(topics).encode())
            for name, (mine, topics) in self.members.items()
        }
        leading = self.members[leader or next(iter(self.members))][0]
        dealt = leading.assign(self.cluster, told)
        for name, (mine, _) in self.members.items():
            mine.on_assignment(dealt[name])
            mine.on_generation_assignment(self.generation)
        self.owned = {name: set(dealt[name].partitions()) for name in self.members}

    def numbers(self, name: str, topic: str = LEAD) -> set[int]:
        return {tp.partition for tp in self.owned[name] if tp.topic == topic}

    def check_owners(self) -> None:
        owners = Counter(tp for owned in self.owned.values() for tp in owned)
        every = {TopicPartition(topic, n) for topic, count in self.cluster.counts.items() for n in range(count)}
        assert owners == Counter(every)


@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.sampled_from(["join", "leave"]), st.integers(0, 5)), min_size=1, max_size=12),
)
def test_whoever_comes_and_goes_equal_numbers_stay_together(partitions, steps):
    """One owner for each partition, the same for each number, as even as can be; also with idle members."""
    group = Group(Topics(shop_escalations=partitions, shop_parked=partitions))
    for step, number in steps:
        if step == "join":
            group.join(f"m{number}")
        else:
            group.members.pop(f"m{number}", None)
        if not group.members:
            continue
        group.rebalance()
        group.check_owners()
        sizes = [len(group.numbers(name)) for name in group.members]
        assert max(sizes) - min(sizes) <= 1
        for name in group.members:
            assert group.numbers(name) == group.numbers(name, OTHER)


def test_what_need_not_move_stays_on_both_topics():
    """Sticky, as before: a member that joins takes its share, and nothing else changes hands."""
    group = Group(Topics(shop_escalations=6, shop_parked=6))
    for name in ("a", "b"):
        group.join(name)
    group.rebalance()
    before = group.owned
    group.join("c")
    group.rebalance()
    assert [len(group.numbers(name)) for name in "abc"] == [2, 2, 2]
    for name in "ab":
        assert group.owned[name] < before[name]


def test_counts_that_differ_leave_no_partition_without_an_owner():
    """More parked partitions than others go by number modulo their count; fewer leave some numbers alone."""
    for parked in (1, 2, 7):
        group = Group(Topics(shop_escalations=3, shop_parked=parked))
        for name in ("a", "b", "c", "d"):
            group.join(name)
        group.rebalance()
        group.check_owners()
        for name in group.members:
            assert all(number % 3 in group.numbers(name) for number in group.numbers(name, OTHER))


def test_old_and_new_members_make_one_group_whoever_leads():
    """While workers are replaced one by one: an old one has no parked topic, and never gets a partition of it."""
    for leader in ("old", "new"):
        group = Group(Topics(shop_escalations=6, shop_parked=6))
        group.join("old", lead=None, topics=(LEAD,))
        group.rebalance()
        group.join("new")
        group.join("newer")
        group.rebalance(leader)
        group.check_owners()
        assert not group.numbers("old", OTHER)
        group.members.pop("old")
        group.rebalance("new")
        group.check_owners()
        assert all(group.numbers(name) == group.numbers(name, OTHER) for name in ("new", "newer"))


def test_a_topic_nobody_leads_in_is_shared_out_evenly():
    """Where the leading topic is not known yet, what follows still has owners."""
    given = following({"a": [], "b": []}, {OTHER: range(4)}, {"a": [LEAD, OTHER], "b": [LEAD, OTHER]})
    assert {member: topics[OTHER] for member, topics in given.items()} == {"a": [0, 2], "b": [1, 3]}
