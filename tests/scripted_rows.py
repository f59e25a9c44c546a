"""Labelled rows that the tests' model `scripted` answers by the words in them."""


def scripted_rows(count: int) -> list[dict[str, object]]:
    """One row in four is negative; every sixtieth of the positive says otherwise than its label. The LLM `big` is
    taken in by the same ones.
    """
    rows = list[dict[str, object]]()
    for n in range(count):
        bad = n % 4 == 1
        said, label = ("negative" if bad else "positive"), ("negative" if bad or n % 60 == 0 else "positive")
        text = f"{'bad' if bad else 'good'} text number {n}"
        rows.append({"id": f"r{n}", "text": text, "label": label, "llm": {"big": said}})
    return rows
