"""A store in which a model of decisions has something to learn."""

from __future__ import annotations

from sqlalchemy import text

from db.store import Store
from tests.db.pair_scores import scorer

N = 700
N_DECIDED = 400


def fill(store: Store, *, n_decided: int = N_DECIDED) -> None:
    """700 pairs, two stages a row, of which the first ``n_decided`` are decided: accepted where the reward is high."""
    reward = scorer(store, "reward")
    chance = "(hash(i * 31 + {}) % 10000) / 10000.0"
    with store.write() as connection:
        for statement in (
            """insert into datasets select 1, 'd', 'import', 't', $n, '{}', now()::timestamp, null""",
            """insert into examples select i, 'h' || i, 'Do ' || i, '', repeat('word ', 1 + i % 7)
                from range(1, 2001) t(i)""",
            f"""insert into pairs select i, 'job', 1, 1001 + i // 2, 1001 + i // 2, i, 'v2',
                case when i % 2 = 0 then 'instruction' else 'response' end, null, 't',
                case when i % 3 = 0 then 'original' else 'reflected' end, '', {chance.format(1)}, {chance.format(1)},
                {chance.format(2)}, null, null, null, now()::timestamp, 1 from range(1, $n + 1) t(i)""",
            f"insert into scores select {reward}, i, {chance.format(3)}, null, false from range(1, $n + 1) t(i)",
            """insert into decisions (decision_id, pair_id, reviewer, verdict, result_id, shown, press, decided_at)
                select nextval('decision_ids'), example_id, 'ada',
                    case when value > 0.5 then 'accept' else 'reject' end, example_id, '{}', 'p' || example_id,
                    now()::timestamp from scores where example_id <= $decided""",
        ):
            connection.execute(text(statement.replace("$n", str(N)).replace("$decided", str(n_decided))))
        connection.execute(text("select nextval('pair_ids') from range(1000)"))
