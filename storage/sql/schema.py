"""What the views hold, column by column, and questions to start from: the text of ``ckd sql`` alone."""

from collections.abc import Mapping
from typing import NamedTuple

USER_ID, ITEM_ID = "user id", "item id"
"""Stand for BIGINT where all domains have whole numbers, else for VARCHAR, the same in every view, so that
views join whatever the raw data were."""


class Column(NamedTuple):
    """A column's DuckDB type (or :data:`USER_ID`, :data:`ITEM_ID`) and its meaning."""

    type: str
    meaning: str


class View(NamedTuple):
    """What one row is, and its columns in order."""

    description: str
    columns: Mapping[str, Column]


_DOMAIN = Column("VARCHAR", "name of the domain")
_TEACHER = Column("VARCHAR", "name of the teacher")
_USER = Column(USER_ID, "user, as in the raw data")
_SPLIT = Column("VARCHAR", "train, valid or test")
_POSITION = Column("INTEGER", "length of the history, from 1")
_ITEM = Column("INTEGER", "code of the item in its domain")
_ITEM_ID = Column(ITEM_ID, "item, as in the raw data")
_TITLE = Column("VARCHAR", "title")
_RUN = Column("VARCHAR", "short key of the run")

VIEWS: Mapping[str, View] = {
    "items": View(
        "one row per item of a domain's catalogue",
        {
            "domain": _DOMAIN,
            "item": _ITEM,
            "item_id": _ITEM_ID,
            "title": _TITLE,
            "brand": Column("VARCHAR", "brand"),
            "categories": Column("VARCHAR", "categories"),
            "description": Column("VARCHAR", "description"),
            "popularity": Column("BIGINT", "training interactions with the item"),
        },
    ),
    "sequences": View(
        "one row per user of a domain: all that the user did there",
        {
            "domain": _DOMAIN,
            "user_id": _USER,
            "length": Column("INTEGER", "number of interactions"),
            "items": Column("INTEGER[]", "item codes, oldest first"),
            "timestamps": Column("BIGINT[]", "when, as in the raw data; 0, 1, 2, ... where it had no times"),
        },
    ),
    "interactions": View(
        "one row per interaction, the long form of sequences",
        {
            "domain": _DOMAIN,
            "user_id": _USER,
            "position": Column("INTEGER", "place in the sequence, from 1; target of the label at position - 1"),
            "item": _ITEM,
            "timestamp": Column("BIGINT", "when, as in the raw data"),
            "split": Column("VARCHAR", "test for the last interaction, valid for the one before, else train"),
        },
    ),
    "labels": View(
        "one row per teacher, domain, user and position: what the teacher says after that history",
        {
            "teacher": _TEACHER,
            "domain": _DOMAIN,
            "user_id": _USER,
            "position": _POSITION,
            "split": _SPLIT,
            "target": Column(ITEM_ID, "the item that really followed"),
            "items": Column("INTEGER[]", "codes of the k best items, best first"),
            "logprobs": Column("FLOAT[]", "their log-probabilities over the whole catalogue"),
            "logsumexp": Column("FLOAT", "log-normaliser of the raw scores"),
            "kept_mass": Column("FLOAT", "probability that the k items hold"),
            "target_logprob": Column("FLOAT", "log-probability of the target"),
            "target_rank": Column("INTEGER", "rank of the target in the whole catalogue, 1 is best"),
            "entropy": Column("FLOAT", "of the whole distribution, in nats"),
            "state": Column("FLOAT[]", "the teacher's query vector; null where it was not stored"),
        },
    ),
    "label_items": View(
        "one row per stored item of a label, the long form of labels",
        {
            "teacher": _TEACHER,
            "domain": _DOMAIN,
            "user_id": _USER,
            "position": _POSITION,
            "split": _SPLIT,
            "rank": Column("INTEGER", "1 is the teacher's best item"),
            "item": _ITEM,
            "item_id": _ITEM_ID,
            "title": _TITLE,
            "logprob": Column("FLOAT", "log-probability over the whole catalogue"),
        },
    ),
    "agreement": View(
        "one row per position and two teachers that both have a label there: how far they agree, who is closer",
        {
            "domain": _DOMAIN,
            "user_id": _USER,
            "position": _POSITION,
            "split": _SPLIT,
            "teacher": Column("VARCHAR", "name of one teacher, the first of the two in order of name"),
            "other": Column("VARCHAR", "name of the other"),
            "shared_10": Column(
                "DOUBLE", "share of their ten best items in common; of as many as both store, if that is fewer"
            ),
            "overlap": Column("DOUBLE", "probability in common: sum of the smaller one over the items that both store"),
            "jaccard": Column("DOUBLE", "items that both store, of those that either stores"),
            "target": Column(ITEM_ID, "the item that really followed"),
            "target_rank": Column("INTEGER", "rank that teacher gives to the target, 1 is best"),
            "other_target_rank": Column("INTEGER", "rank that other gives to it"),
            "closer": Column("VARCHAR", "name of the one that ranks the target higher; tie if neither does"),
        },
    ),
    "runs": View(
        "one row per trained student",
        {
            "run": _RUN,
            "student": Column("VARCHAR", "name of the student"),
            "domains": Column("VARCHAR[]", "domains that it serves: several where they share one network"),
            "seed": Column("BIGINT", "seed of the training"),
            "distilled": Column("BOOLEAN", "whether it learned from teachers"),
            "teachers": Column("VARCHAR", "names of the teachers that it learned from, in any domain; null if none"),
            "alpha": Column("DOUBLE", "share of the distillation loss; null where the run has none"),
            "temperature": Column("DOUBLE", "of the distillation losses; null where the run has none"),
            "parameters": Column("BIGINT", "trainable numbers of the student"),
            "epochs": Column("INTEGER", "epochs trained"),
            "best_epoch": Column("INTEGER", "epoch that was kept, chosen on validation"),
            "settings": Column(
                "VARCHAR",
                "all that determined the run but the seed, as JSON: group by it to compare over seeds; "
                "settings->>'$.settings.learning_rate'",
            ),
            "inputs": Column("VARCHAR", "all that determined the run, as JSON: inputs->>'$.student'"),
        },
    ),
    "metrics": View(
        "one row per metric: of students as stored with the run, of teachers as computed from their labels",
        {
            "owner": Column("VARCHAR", "student or teacher"),
            "name": Column("VARCHAR", "name of the student or teacher"),
            "run": Column("VARCHAR", "short key of the run; null for teachers"),
            "domain": _DOMAIN,
            "split": Column("VARCHAR", "valid or test"),
            "metric": Column("VARCHAR", "recall@10, recall@50, ndcg@10, ndcg@50 or mrr"),
            "value": Column("DOUBLE", "mean over the users, for teachers over those with a label"),
        },
    ),
    "ranks": View(
        "one row per run, split and user: for questions that pair two runs user by user",
        {
            "run": _RUN,
            "domain": _DOMAIN,
            "user_id": _USER,
            "split": Column("VARCHAR", "valid or test"),
            "rank": Column("INTEGER", "rank of the held-out item in the whole catalogue, 1 is best"),
        },
    ),
}

EXAMPLES: Mapping[str, str] = {
    "How good is each teacher alone?": """\
select domain, name as teacher, metric, round(value, 4) as value
from metrics where owner = 'teacher' and split = 'test' order by all""",
    "How much of their probability do the stored items hold, and how much the best ten of them?": """\
select teacher, domain, count(*) as labels, round(avg(kept_mass), 3) as kept,
    round(avg(list_sum(list_transform(logprobs[:10], lambda x: exp(x)))), 3) as kept_by_ten
from labels group by teacher, domain order by all""",
    "What would each teacher recommend next to one user?": """\
select teacher, domain, rank, item_id, title, round(exp(logprob), 4) as probability
from label_items
where user_id = (select min(user_id) from sequences) and split = 'test' and rank <= 5
order by teacher, domain, rank""",
    "How far do two teachers agree, and how much of their probability do they share?": """\
select domain, split, teacher, other, count(*) as positions, round(avg(shared_10), 3) as best_ten,
    round(avg(overlap), 3) as overlap, round(avg(jaccard), 3) as jaccard
from agreement group by all order by all""",
    "Which teacher ranks the truth higher, by how popular the true item is?": """\
select a.domain, case when i.popularity < 5 then '1: under 5' when i.popularity < 20 then '2: 5 to 19'
    when i.popularity < 100 then '3: 20 to 99' else '4: 100 and more' end as popularity, closer, count(*) as positions
from agreement a
join interactions t on t.domain = a.domain and t.user_id = a.user_id and t.position = a.position + 1
join items i on i.domain = t.domain and i.item = t.item
where a.split = 'test' group by all order by all""",
    "Which settings are the best on validation, over their seeds? (What `ckd runs` lists.)": """\
select v.domain, r.student, r.teachers, r.alpha, r.temperature, count(*) as seeds, round(avg(v.value), 4) as valid,
    round(stddev_samp(v.value), 4) as spread, round(avg(t.value), 4) as test, any_value(r.parameters) as parameters
from runs r
join metrics v on v.run = r.run and v.split = 'valid' and v.metric = 'ndcg@10'
join metrics t on t.run = r.run and t.domain = v.domain and t.split = 'test' and t.metric = v.metric
group by v.domain, r.student, r.teachers, r.alpha, r.temperature, r.settings
order by v.domain, avg(v.value) desc""",
    "How good are the students of the store, by the settings of distillation?": """\
select m.domain, r.student, r.distilled, r.alpha, r.temperature, m.metric, count(distinct r.seed) as seeds,
    count(*) as runs, round(avg(m.value), 4) as value
from metrics m join runs r using (run)
where m.split = 'test' group by all order by all""",
}
"""Question to SQL; each runs as it stands on any store."""
