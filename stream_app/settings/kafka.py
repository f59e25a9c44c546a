"""Where Kafka is, and what the pipeline's topics are called."""

from typing import Annotated, Literal

from pydantic import Field

from stream_app.settings.section import PositiveFloat, Section

TopicName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]


class Topics(Section):
    """Names of the output topics. What is left out is derived from the input topic's name."""

    decisions: TopicName | None = None
    escalations: TopicName | None = None
    dlq: TopicName | None = None
    parked: TopicName | None = None
    review: TopicName | None = None
    feedback: TopicName | None = None
    verdicts: TopicName | None = None
    audits: TopicName | None = None
    audit_results: TopicName | None = None
    control: TopicName | None = None


class TopicNames(Section):
    """All topic names of a pipeline, resolved."""

    input: str
    decisions: str
    escalations: str
    dlq: str
    parked: str
    review: str
    feedback: str
    verdicts: str
    audits: str
    audit_results: str
    control: str


class Kafka(Section):
    """Where Kafka is, and how the lanes behave towards it."""

    bootstrap_servers: str = "127.0.0.1:9092"
    group: Annotated[str, Field(min_length=1)] = "shunt"
    input_topic: TopicName = "reviews"
    topics: Topics = Topics()
    start: Literal["earliest", "latest"] = "earliest"
    """Where a group without any committed offset begins; `latest` is the end at its very first start.

    A partition that is added later is read from its beginning in either case. An offset that has expired, or lies
    beyond the end, is an error, never a jump.
    """
    session_timeout_ms: Annotated[int, Field(ge=1_000, le=300_000)] = 10_000
    transaction_timeout_ms: Annotated[int, Field(ge=1_000, le=900_000)] = 15_000
    """Bounds how long a dead worker holds back readers of the topics it wrote to."""
    handover_s: PositiveFloat = 5.0
    drain_timeout_s: PositiveFloat = 30.0
    transactions_per_s_max: PositiveFloat = 150.0
    """A transaction costs about 1 ms of CPU, whatever it carries."""
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "zstd"
    """Of what the lanes write. Decisions are much alike, so zstd costs less than sending them would."""

    @property
    def names(self) -> TopicNames:
        """The topic names, each as set or derived from the input topic's."""
        return TopicNames(
            input=self.input_topic,
            decisions=self.topics.decisions or f"{self.input_topic}-decisions",
            escalations=self.topics.escalations or f"{self.input_topic}-escalations",
            dlq=self.topics.dlq or f"{self.input_topic}-dlq",
            parked=self.topics.parked or f"{self.input_topic}-parked",
            review=self.topics.review or f"{self.input_topic}-review",
            feedback=self.topics.feedback or f"{self.input_topic}-feedback",
            verdicts=self.topics.verdicts or f"{self.input_topic}-verdicts",
            audits=self.topics.audits or f"{self.input_topic}-audits",
            audit_results=self.topics.audit_results or f"{self.input_topic}-audit-results",
            control=self.topics.control or f"{self.input_topic}-control",
        )
