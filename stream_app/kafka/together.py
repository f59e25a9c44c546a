"""Who reads which partition in a group over several topics: equal numbers stay together.

The sticky assignor deals out the partitions of one topic, which leads; a partition of each other topic goes to who
got the leading one with its number (modulo their count, where the counts differ). So what is shared out by number, as
the LLM's limits are, is shared by all topics of a number, and what stays with its owner keeps the others there.
Members without the other topics (an older version, while workers are replaced one by one) get none of them.

The name and the messages are the sticky assignor's own: old and new members make one group, whoever leads it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, ClassVar, cast

from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from aiokafka.cluster import ClusterMetadata
    from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyAssignorMemberMetadataV1
    from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata

    Numbers = dict[str, dict[str, list[int]]]
    """Partition numbers by member and topic."""


def assignor(lead: str | None) -> type[StickyPartitionAssignor]:
    """An assignor for one consumer; without a topic to lead, the sticky one.

    A class for each: the sticky assignor keeps its memory on the class, and a process may have several consumers.
    """
    if lead is None:
        return type("Sticky", (StickyPartitionAssignor,), {})
    return type("Together", (_Together,), {"lead": lead})


def following(
    led: Mapping[str, Collection[int]], others: Mapping[str, Iterable[int]], members: Mapping[str, Collection[str]]
) -> Numbers:
    """The numbers of `others` (topic -> its partitions) that each member gets beside its leading ones in `led`.

    `members` are all, with the topics each reads. Where the owner of the leading number does not read the topic, or
    there is none, whoever has the fewest of it gets the partition: none is left without an owner.
    """
    owners = {number: member for member, numbers in led.items() for number in numbers}
    given: Numbers = {member: defaultdict(list) for member in members}
    for topic, numbers in sorted(others.items()):
        able = sorted(member for member, topics in members.items() if topic in topics)
        for number in sorted(numbers):
            member = owners.get(number % len(owners)) if owners else None
            if member not in able:
                member = min(able, key=lambda one: len(given[one][topic]), default=None)
            if member is not None:
                given[member][topic].append(number)
    return given


class _Leading:
    """The cluster as if it had the leading topic alone: all that the sticky assignor may deal out."""

    def __init__(self, cluster: ClusterMetadata, lead: str) -> None:
        self._cluster, self._lead = cluster, lead

    def topics(self) -> set[str]:
        """The one."""
        return {self._lead}

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        """Its partitions."""
        return self._cluster.partitions_for_topic(topic)


class _Together(StickyPartitionAssignor):
    lead: ClassVar[str]

    @classmethod
    def assign(
        cls, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """The leading topic as the sticky assignor has it, then what follows."""
        leading = super().assign(cast("ClusterMetadata", _Leading(cluster, cls.lead)), members)
        led = {member: [tp.partition for tp in dealt.partitions()] for member, dealt in leading.items()}
        topics = {topic for metadata in members.values() for topic in metadata.subscription} - {cls.lead}
        others = {topic: cluster.partitions_for_topic(topic) or () for topic in topics}
        given = following(led, others, {member: metadata.subscription for member, metadata in members.items()})
        return {
            member: ConsumerProtocolMemberAssignment(
                cls.version,
                sorted((topic, sorted(numbers)) for topic, numbers in _all(cls.lead, led[member], given[member])),
                b"",
            )
            for member in members
        }

    @classmethod
    def parse_member_metadata(cls, metadata: ConsumerProtocolMemberMetadata) -> StickyAssignorMemberMetadataV1:
        """What a member reads and had, of the leading topic."""
        known = super().parse_member_metadata(metadata)
        return known._replace(
            subscription=[topic for topic in known.subscription if topic == cls.lead],
            partitions=[tp for tp in known.partitions if tp.topic == cls.lead],
        )


def _all(lead: str, led: list[int], given: Mapping[str, list[int]]) -> Iterable[tuple[str, list[int]]]:
    """A member's topics with their partitions, those without any left out."""
    return [(topic, numbers) for topic, numbers in ((lead, led), *given.items()) if numbers]
