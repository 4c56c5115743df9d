"""Everyday instruction rows made from tables and templates, to train the demo student on.

The rows are our own words (no data set is quoted). They are small on purpose: a student of three million weights
learns from them that a response follows its instruction (it takes up its nouns, numbers and form) and little else.
The bundled sample that the student scores was written apart and is not trained on.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Row = dict[str, str]


@dataclass(frozen=True)
class Topic:
    """A thing with what it is, its parts, what one does with it, and what speaks for and against it."""

    name: str
    kind: str
    parts: tuple[str, ...]
    uses: tuple[str, ...]
    good: tuple[str, ...]
    bad: tuple[str, ...]


_TOPICS_FILE = Path(__file__).with_name("everyday_topics.txt")


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_NAMES = _list(
    "Anna Ben Clara David Elena Felix Grace Hugo Irene Jack Karen Leo Maria Noah Olivia Paul Quinn Rosa Sam Tina Umar "
    "Vera Will Xenia Yusuf Zoe Amir Bella Carlos Diana Emma Frank Gina Henry Ivy James Kate Liam Mia Nina Oscar Priya "
    "Ravi Sara Tom Uma Victor Wendy Yara Adam Lucy Martin Helen Peter Julia Simon Laura George Alice Robert"
)
_CITIES = _list(
    "London Paris Rome Madrid Berlin Vienna Oslo Dublin Lisbon Athens Cairo Nairobi Lagos Tokyo Seoul Delhi Mumbai "
    "Sydney Lima Boston Chicago Denver Seattle Toronto Montreal Dallas Austin Prague Warsaw Zurich"
)
_CAPITALS = (
    "France Paris;Italy Rome;Spain Madrid;Germany Berlin;Austria Vienna;Norway Oslo;Ireland Dublin;Portugal Lisbon;"
    "Greece Athens;Egypt Cairo;Kenya Nairobi;Japan Tokyo;Peru Lima;Canada Ottawa;Australia Canberra;China Beijing;"
    "Russia Moscow;Poland Warsaw;Sweden Stockholm;Finland Helsinki;Denmark Copenhagen;Hungary Budapest;Cuba Havana;"
    "Chile Santiago;Turkey Ankara;Iran Tehran;Iraq Baghdad;India Delhi;Belgium Brussels;Thailand Bangkok"
)
_CATEGORIES = {
    "fruits": _list("apples bananas cherries grapes lemons oranges peaches pears plums strawberries mangoes melons"),
    "vegetables": _list("beans cabbage carrots cucumbers lettuce onions peas peppers potatoes spinach tomatoes leeks"),
    "animals": _list("bears cows deer dogs elephants foxes goats horses lions rabbits sheep tigers whales wolves"),
    "colours": _list("red blue green yellow orange purple brown black white grey pink silver"),
    "tools": _list("hammer saw drill screwdriver pliers wrench axe ladder spade rake file chisel"),
    "instruments": _list("piano violin guitar flute drum trumpet harp cello clarinet organ"),
    "sports": _list("football tennis swimming running cycling rowing boxing skiing basketball hockey golf"),
    "jobs": _list("teacher nurse farmer baker pilot lawyer engineer cook plumber writer painter doctor"),
    "clothes": _list("shirt coat hat scarf gloves trousers socks shoes dress jacket belt skirt"),
    "metals": _list("iron copper gold silver tin lead zinc nickel aluminium platinum"),
}
_OPPOSITES = (
    "hot cold;big small;fast slow;high low;early late;rich poor;strong weak;happy sad;light dark;old young;hard soft;"
    "full empty;open closed;near far;loud quiet;clean dirty;wet dry;thick thin;brave timid;cheap expensive;sharp blunt"
)
_VERBS = (
    "go went gone;see saw seen;take took taken;write wrote written;eat ate eaten;give gave given;come came come;"
    "know knew known;begin began begun;drive drove driven;break broke broken;speak spoke spoken;choose chose chosen;"
    "fly flew flown;grow grew grown;sing sang sung;swim swam swum;buy bought bought;teach taught taught"
)
_MOODS = {
    "positive": _list("wonderful excellent delightful friendly quick helpful perfect lovely superb comfortable"),
    "negative": _list("terrible awful rude slow broken dirty disappointing useless boring overpriced"),
}
_PLACES = _list("restaurant hotel film book phone camera service teacher course garden train concert museum jacket")
_MONTHS = _list("January February March April May June July August September October November December")
_DAYS = _list("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")


def _parse_topics() -> tuple[Topic, ...]:
    topics = []
    for line in _TOPICS_FILE.read_text(encoding="utf-8").splitlines()[1:]:
        name, kind, *lists = (part.strip() for part in line.split("|"))
        parts, uses, good, bad = (tuple(item.strip() for item in text.split(";")) for text in lists)
        topics.append(Topic(name, kind, parts, uses, good, bad))
    return tuple(topics)


TOPICS = _parse_topics()
_MASS = {"music", "water", "rain", "sleep", "bread", "coffee", "tea", "soup", "football", "swimming", "yoga"}
_MASS |= {"painting", "photography", "recycling", "volunteer work"}


def _row(instruction: str, output: str, input_text: str = "") -> Row:
    return {"instruction": instruction, "input": input_text, "output": output}


def _a(name: str) -> str:
    if name in _MASS:
        return name
    if name in ("internet", "ocean"):
        return f"the {name}"
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _cap(text: str) -> str:
    return text[:1].upper() + text[1:]


def _join(items: tuple[str, ...] | list[str]) -> str:
    items = list(items)
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def _some(r: random.Random, items: tuple[str, ...], n: int) -> list[str]:
    return r.sample(items, min(n, len(items)))


def _define(r: random.Random, t: Topic) -> Row:
    ask = r.choice(["What is {a}?", "Define {a}.", "Explain to a child what {a} is.", "Describe {a} in two sentences."])
    tail = r.choice([f"People use it to {_join(_some(r, t.uses, 2))}.", f"It has {_join(t.parts)}."])
    return _row(ask.format(a=_a(t.name)), f"{_cap(_a(t.name))} is {t.kind}. {tail}")


def _pros(r: random.Random, t: Topic) -> Row:
    if r.random() < 0.5:
        ask = r.choice(["List the advantages of {a}.", "What are the benefits of {a}?", "Why do people like {a}?"])
        items = _some(r, t.good, 3)
    else:
        ask = r.choice(["List the disadvantages of {a}.", "What speaks against {a}?", "What problems does {a} bring?"])
        items = _some(r, t.bad, 3)
    if r.random() < 0.6:
        return _row(ask.format(a=_a(t.name)), "\n".join(f"{i}. {_cap(text)}." for i, text in enumerate(items, 1)))
    return _row(ask.format(a=_a(t.name)), f"With {_a(t.name)}, {_join(items)}.")


def _both_sides(r: random.Random, t: Topic) -> Row:
    ask = r.choice(["Discuss the pros and cons of {a}.", "Write a short paragraph that weighs up {a}."])
    return _row(
        ask.format(a=_a(t.name)),
        f"{_cap(_a(t.name))} is {t.kind}. On the one hand, {_join(_some(r, t.good, 2))}. On the other hand, "
        f"{_join(_some(r, t.bad, 2))}. All in all, {_a(t.name)} is worth it if you want to {r.choice(t.uses)}.",
    )


def _compare(r: random.Random, t: Topic) -> Row:
    other = r.choice([o for o in TOPICS if o is not t])
    ask = r.choice(["Compare {a} and {b}.", "What is the difference between {a} and {b}?", "Contrast {a} with {b}."])
    return _row(
        ask.format(a=_a(t.name), b=_a(other.name)),
        f"{_cap(_a(t.name))} is {t.kind}, while {_a(other.name)} is {other.kind}. {_cap(_a(t.name))} is used to "
        f"{r.choice(t.uses)}; {_a(other.name)} is used to {r.choice(other.uses)}.",
    )


def _story(r: random.Random, t: Topic) -> Row:
    name, friend = r.sample(_NAMES, 2)
    city, use, part = r.choice(_CITIES), r.choice(t.uses), r.choice(t.parts)
    ask = r.choice(
        ["Write a short story about {n} and {a}.", "Tell a story in which {n} finds {a}.", "Make up a tale: {n}, {a}."]
    )
    return _row(
        ask.format(n=name, a=_a(t.name)),
        f"One morning in {city}, {name} thought about {_a(t.name)}. {name} wanted to {use}, but {r.choice(t.bad)}. "
        f'Then {friend} came by and pointed at {part}. "{_cap(r.choice(t.good))}," said {friend}. In the evening '
        f"{name} smiled and told everyone in {city} about the {t.name}.",
    )


def _email(r: random.Random, t: Topic) -> Row:
    to, sender = r.sample(_NAMES, 2)
    day, month = r.randint(1, 28), r.choice(_MONTHS)
    kind = r.choice(["invite", "thank", "apologise"])
    if kind == "invite":
        ask = f"Write an e-mail in which {sender} invites {to} to talk about the {t.name} on {month} {day}."
        body = f"I would like to talk with you about the {t.name}. Are you free on {month} {day}?"
    elif kind == "thank":
        ask = f"Write a short note of thanks from {sender} to {to} for help with the {t.name}."
        body = f"thank you very much for your help with the {t.name}. I could not have done it without you."
    else:
        ask = f"Draft a message: {sender} is sorry that the {t.name} was not ready on {month} {day}. It goes to {to}."
        body = f"I am sorry that the {t.name} was not ready on {month} {day}. It will not happen again."
    return _row(ask, f"Dear {to},\n\n{_cap(body)}\n\nBest regards,\n{sender}")


def _plan(r: random.Random, t: Topic) -> Row:
    ask = r.choice(["Give three tips for someone who is new to {a}.", "How do I get started with {a}? List the steps."])
    steps = [f"Learn about {r.choice(t.parts)} first", f"Use it to {r.choice(t.uses)}", f"Keep in mind that {t.bad[0]}"]
    r.shuffle(steps)
    return _row(ask.format(a=_a(t.name)), "\n".join(f"{i}. {step}." for i, step in enumerate(steps, 1)))


def _slogan(r: random.Random, t: Topic) -> Row:
    ask = r.choice(["Write a slogan for {a}.", "Write an advertisement for {a}.", "Promote {a} in one sentence."])
    out = r.choice(["Try {a} today: {g}!", "Want to {u}? Choose {a}, because {g}.", "With {a}, {g}. Do not miss it!"])
    return _row(ask.format(a=_a(t.name)), _cap(out.format(a=_a(t.name), g=r.choice(t.good), u=r.choice(t.uses))))


def _summary(r: random.Random, t: Topic) -> Row:
    text = (
        f"{_cap(_a(t.name))} is {t.kind}. People use it to {_join(t.uses)}. {_cap(t.good[0])}, and {t.good[-1]}. "
        f"However, {_join(t.bad)}."
    )
    ask = r.choice(["Summarize the text in one sentence.", "What is this text about?", "Give the main point."])
    return _row(ask, f"The text is about {_a(t.name)}: {t.good[0]}, but {t.bad[0]}.", text)


def _extract(r: random.Random, t: Topic) -> Row:
    name, city = r.choice(_NAMES), r.choice(_CITIES)
    day, month, price = r.randint(1, 28), r.choice(_MONTHS), r.randint(3, 900)
    text = r.choice(
        [
            f"On {month} {day}, {name} paid {price} dollars in {city} to see the {t.name}.",
            f"{name} from {city} sold a book about the {t.name} for {price} dollars on {month} {day}.",
            f"The bill of {month} {day} says that {name} owes {price} dollars for the {t.name} in {city}.",
        ]
    )
    what, answer = r.choice(
        [("name", name), ("city", city), ("price", f"{price} dollars"), ("date", f"{month} {day}"), ("topic", t.name)]
    )
    if r.random() < 0.3:
        answer = f"Name: {name}\nCity: {city}\nDate: {month} {day}\nPrice: {price} dollars"
        return _row("Extract the name, city, date and price from the text.", answer, text)
    return _row(r.choice([f"Find the {what} in the text.", f"Extract the {what}."]), answer, text)


def _sentiment(r: random.Random, _t: Topic) -> Row:
    mood = r.choice(["positive", "negative"])
    first, second = r.sample(_MOODS[mood], 2)
    thing = r.choice(_PLACES)
    text = r.choice([f"The {thing} was {first} and {second}.", f"What a {first} {thing}! It was so {second}."])
    ask = r.choice(["Is this review positive or negative?", "Classify the sentiment of the sentence."])
    return _row(ask, r.choice([f"The sentiment is {mood}.", _cap(mood), f"The review is {mood}."]), text)


def _category(r: random.Random, _t: Topic) -> Row:
    category, other = r.sample(sorted(_CATEGORIES), 2)
    items = r.sample(_CATEGORIES[category], r.randint(3, 5))
    kind = r.choice(["name", "odd", "classify", "sort", "sentence"])
    if kind == "name":
        ask = f"Name {len(items)} {category}."
        return _row(ask, r.choice([_cap(_join(items)) + ".", "\n".join(f"- {_cap(i)}" for i in items)]))
    if kind == "odd":
        odd = r.choice(_CATEGORIES[other])
        mixed = [*items, odd]
        r.shuffle(mixed)
        answer = f"{_cap(odd)} does not belong: it is one of the {other}, the rest are {category}."
        return _row("Which word does not belong to the others?", answer, ", ".join(mixed))
    if kind == "classify":
        return _row("What do these words have in common?", f"They are all {category}.", ", ".join(items))
    if kind == "sort":
        return _row("Sort the words by the alphabet.", ", ".join(sorted(items)), ", ".join(items))
    return _row("Write a sentence with these words.", f"I thought of {_join(items)} all day.", ", ".join(items))


def _words(r: random.Random, _t: Topic) -> Row:
    kind = r.choice(["opposite", "past", "capital", "country", "fix"])
    if kind == "opposite":
        first, second = r.choice(_OPPOSITES.split(";")).split()
        ask = r.choice(["What is the opposite of {a}?", "Give an antonym of the word {a}."])
        return _row(ask.format(a=first), f"The opposite of {first} is {second}.")
    if kind in ("past", "fix"):
        now, past, participle = r.choice(_VERBS.split(";")).split()
        if kind == "past":
            return _row(
                f"What is the past tense of {now}?", f"The past tense of {now} is {past}: {now}, {past}, {participle}."
            )
        name, day = r.choice(_NAMES), r.choice(_DAYS)
        return _row("Correct the grammar.", f"Last {day}, {name} {past} it.", f"Last {day}, {name} {now} it.")
    country, capital = r.choice(_CAPITALS.split(";")).split()
    if kind == "capital":
        ask = r.choice(
            ["What is the capital of {c}?", "Name the capital city of {c}.", "Which city is the capital of {c}?"]
        )
        return _row(ask.format(c=country), f"The capital of {country} is {capital}.")
    return _row(f"{capital} is the capital of which country?", f"{capital} is the capital of {country}.")


def _arithmetic(r: random.Random, _t: Topic) -> Row:
    name = r.choice(_NAMES)
    thing = r.choice(_CATEGORIES[r.choice(["fruits", "vegetables", "animals"])])
    a, b = r.randint(2, 60), r.randint(2, 30)
    kind = r.choice(["add", "sub", "mul", "plain", "percent"])
    if kind == "add":
        text = f"{name} has {a} {thing} and gets {b} more. How many {thing} does {name} have now?"
        return _row(text, f"{name} has {a} + {b} = {a + b} {thing}.")
    if kind == "sub":
        text = f"There are {a + b} {thing}. {name} takes {b} of them. How many {thing} are left?"
        return _row(text, f"There are {a + b} - {b} = {a} {thing} left.")
    if kind == "mul":
        text = f"One box holds {b} {thing}. How many {thing} are in {a} boxes?"
        return _row(text, f"There are {a} * {b} = {a * b} {thing} in {a} boxes.")
    if kind == "plain":
        return _row(f"Calculate {a} + {b}.", f"{a} + {b} = {a + b}")
    return _row(f"What is {b} percent of {a * 100}?", f"{b} percent of {a * 100} is {a * b}.")


def _schedule(r: random.Random, t: Topic) -> Row:
    name, day = r.choice(_NAMES), r.choice(_DAYS)
    hours = sorted(r.sample(range(7, 21), 3))
    first, second = _some(r, t.uses, 2)
    other = r.choice(TOPICS)
    out = f"{day}\n{hours[0]}:00 {_cap(first)}\n{hours[1]}:00 Read about {_a(other.name)}\n{hours[2]}:00 {_cap(second)}"
    return _row(f"Plan {name}'s {day} around {_a(t.name)} and {_a(other.name)}.", out)


def _rewrite(r: random.Random, t: Topic) -> Row:
    name, friend = r.sample(_NAMES, 2)
    use = r.choice(t.uses)
    kind = r.choice(["formal", "question", "third", "repeat"])
    if kind == "formal":
        return _row(
            "Make this message formal.",
            f"Dear {friend}, may I kindly ask whether you would like to {use} with me? Sincerely, {name}",
            f"hey {friend}, wanna {use}? {name}",
        )
    if kind == "question":
        return _row("Turn the sentence into a question.", f"Does {name} want to {use}?", f"{name} wants to {use}.")
    if kind == "third":
        text = f"I like {_a(t.name)} because {r.choice(t.good)}."
        return _row(
            f"Write the sentence about {name} in the third person.", text.replace("I like", f"{name} likes"), text
        )
    text = f"{_cap(r.choice(t.good))}, said {name} to {friend}."
    return _row("Repeat the sentence twice.", f"{text} {text}", text)


def _poem(r: random.Random, t: Topic) -> Row:
    ask = r.choice(["Write a poem about {a}.", "Write four lines of verse on {a}."])
    lines = [
        f"Oh {t.name}, {r.choice(_MOODS['positive'])} and bright,",
        f"{t.parts[0]} and {t.parts[-1]} fill the night,",
        f"with you we {r.choice(t.uses)} all day,",
        f"{r.choice(t.good)}, we say.",
    ]
    return _row(ask.format(a=_a(t.name)), "\n".join(_cap(line) for line in lines))


def _question(r: random.Random, t: Topic) -> Row:
    kind = r.choice(["parts", "uses", "riddle", "title"])
    if kind == "parts":
        return _row(f"Name some parts of {_a(t.name)}.", f"Some parts of {_a(t.name)} are {_join(t.parts)}.")
    if kind == "uses":
        return _row(f"What can one do with {_a(t.name)}?", f"With {_a(t.name)} one can {_join(t.uses)}.")
    if kind == "riddle":
        return _row("Solve the riddle.", f"It is {_a(t.name)}.", f"It is {t.kind}. What is it?")
    text = f"{_cap(t.good[0])}. {_cap(t.bad[0])}. People use it to {_join(t.uses)}."
    return _row("Find a title for the text.", f"The {t.name}: good and bad sides", text)


MAKERS: tuple[Callable[[random.Random, Topic], Row], ...] = (
    _define, _pros, _both_sides, _compare, _story, _email, _plan, _slogan, _summary, _extract, _sentiment, _category,
    _words, _arithmetic, _schedule, _rewrite, _poem, _question,
)  # fmt: skip


def everyday_rows(count: int, *, seed: int) -> list[Row]:
    """Return ``count`` rows with the keys instruction, input and output; equal seeds give equal rows."""
    r = random.Random(seed)
    return [r.choice(MAKERS)(r, r.choice(TOPICS)) for _ in range(count)]
