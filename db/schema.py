"""Every table of the store on one screen.

- ``examples`` are content-addressed: ``hash`` is :func:`core.example.content_hash`. Nothing ever updates one.
- ``datasets`` are lists of ``members`` that point at examples; mixture, selection, curated set: all are datasets.
- ``scores`` are long: one row per scorer and example; ``value`` NULL always comes with a ``reason``.
- ``embeddings`` hold one vector per example and embedding model (a row of ``scorers`` with the output ``embedding``).
- ``job_shards`` is the ledger: a shard that stands here has been collected, once.
- ``reflections`` say what a method made of a row (the student's proposal for the whole row); ``pairs`` are its stages.
  Both only grow, by rising id, so that any earlier state can be named (core/moment.py).
- ``evaluation_sets`` marks datasets to evaluate on: members that share instruction and input are references of one
  instruction.
- ``studies`` plan ``runs``: one finetune each, on a dataset of its own. ``run_results`` are appended, so a run that is
  done again has two; ``current_run_results`` has the latest, a good one before any other. ``run_losses`` are its losses
  per evaluation output. ``study_jobs`` says which jobs do the runs of which study.
- ``dataset_distances`` are the mean kNN distances of a dataset within itself, computed when it had ``n_vectors``
  embeddings: remembered, not a record.
- ``fits`` and ``rules`` never change; another one gets another name.
- ``prompts`` are the reflection prompts that runs used, by version; a version never changes. ``candidates`` are all
  rewrites that a row got in one stage and round; the one that was chosen is the candidate of a pair.
- ``answer_sets`` hold one answer per item of a test set (a dataset): its items are the distinct instructions with
  their inputs, known by the example of the first member that has them.
- ``comparisons`` set two answer sets of one test set against each other. ``judgements`` are append-only: one verdict
  of one judge on one item in one order; ``preference`` 1 says the first answer set's answer is better, -1 the second's.
  Scores and preference are those of the answer sets, whatever order was shown. ``current_judgements`` has, of each
  judge, item and order, the latest that could be read, else the latest. ``comparison_jobs`` says which jobs judge for
  which comparison.
- ``lm_eval_results`` are metrics of tasks by lm-evaluation-harness.
- ``experiments`` are settings; while one is ``held`` no further step of it begins. ``experiment_links`` name what was
  made for their steps: a job's link stands before the job does, and ``done`` says that a step is over.
- ``people`` are who signed in or gave a name; ``identity`` (an e-mail or a name) is what decisions carry as their
  ``reviewer``. ``role_changes`` are append-only; ``current_roles`` has the latest of each person.
- ``preferences`` and ``drafts`` hold one value per person and name, or person and pair: the latest only.
- ``campaigns`` say who reviews which pairs, how often each (``overlap``); their changes are ``campaign_events``.
  ``campaign_pairs`` may carry a gold verdict. ``leases`` are pairs that lie on a desk right now.
- ``bulk_actions`` are decisions on a whole filter at once; one that undoes another names it.
- ``saved_filters`` are the query parameters of a page; ``pair_lists`` are queues that somebody marked.
- ``pair_models`` learnt from decisions; ``pair_predictions`` are what they say of each pair.
- ``board_events`` (append-only) are what a presenter showed; ``votes`` and their ``ballots`` are blind votes on a pair:
  round 1 before, round 2 after the discussion.
- ``decisions`` are append-only; the views give the current state. An undo is a row that names what it undoes.
  ``purpose``: ``review``, ``adjudication``, ``bulk``; ``second_look`` and ``late`` (of a campaign, when enough others
  had decided the pair) never count, they are history only.
- What stands (``current_decisions``): a person's **word** on a pair is that person's latest standing decision of the
  purpose ``review``, in a campaign or outside. On a pair of no campaign, or of campaigns with overlap 1, the newest
  decision stands, whoever gave it, be it a review, a ruling or in bulk. On a pair of a campaign with overlap k > 1 (the
  largest k, if of several): a standing adjudication stands, until it is undone or a newer bulk decision overrides it.
  Else the words stand when at least k people have one and all are the same, verdict and resulting example alike (two
  edits that differ do not agree); a standing bulk decision stands where there is no such agreement or it is newer than
  the newest word. Else nothing stands: the pair waits for more decisions, or is disputed.

There are no physical foreign keys: DuckDB refuses updates of referenced rows. References are kept by db/commands.py.
"""

from __future__ import annotations

VERDICTS_DECIDED = ("accept", "reject", "edit", "new_instruction", "new_response")
"""Verdicts that decide a pair. ``edit``: accept after an edit. ``new_instruction``: the new instruction with the old
response. ``new_response``: the old instruction with the new response."""
VERDICTS_OTHER = ("skip", "flag", "unflag", "undo")

RUN_KINDS = ("mixture", "bin", "subset", "random")
"""Kinds of datasets that a study made for its runs: lists leave them out unless asked."""

SEQUENCES = ("example_ids", "dataset_ids", "scorer_ids", "pair_ids", "decision_ids", "export_ids")

V1: tuple[str, ...] = (
    *(f"create sequence {name}" for name in SEQUENCES),
    """create table examples (
        example_id bigint primary key, hash varchar not null unique,
        instruction varchar not null, input varchar not null, output varchar not null)""",
    """create table datasets (
        dataset_id bigint primary key, name varchar not null unique, kind varchar not null, source varchar not null,
        n_members bigint not null, details json not null, created_at timestamp not null, created_by varchar)""",
    """create table members (
        dataset_id bigint not null, position bigint not null, example_id bigint not null, metadata varchar,
        primary key (dataset_id, position))""",
    """create table scorers (
        scorer_id bigint primary key, identity varchar not null unique, output varchar not null,
        indicator varchar not null, version varchar not null,
        model varchar, revision varchar, template varchar, settings json not null)""",
    """create table scores (
        scorer_id bigint not null, example_id bigint not null, value double, reason varchar, transient boolean not null,
        primary key (scorer_id, example_id), check (value is not null or reason is not null))""",
    """create table jobs (
        job_id varchar primary key, kind varchar not null, title varchar not null, dataset_id bigint,
        submitted_at timestamp not null, submitted_by varchar, retry_of varchar)""",
    """create table job_shards (
        job_id varchar not null, shard bigint not null, n_rows bigint not null, n_failed bigint not null,
        collected_at timestamp not null, primary key (job_id, shard))""",
    """create table job_failures (
        job_id varchar not null, shard bigint not null, example_id bigint not null, stage varchar not null,
        reason varchar not null, transient boolean not null)""",
    """create table teacher_calls (
        call_id varchar primary key, job_id varchar not null, example_id bigint not null, asked_id bigint not null,
        stage varchar not null, prompt_version varchar not null, teacher varchar not null, model varchar not null,
        raw varchar, finish_reason varchar, outcome varchar not null, reason varchar, critique json not null,
        prompt_tokens bigint, completion_tokens bigint, cost_usd double, seconds double, attempts bigint,
        requested_at timestamp)""",
    """create table pairs (
        pair_id bigint primary key, job_id varchar not null, dataset_id bigint not null, original_id bigint not null,
        base_id bigint not null, candidate_id bigint not null, method varchar not null, stage varchar not null,
        call_id varchar, teacher varchar not null, proposal varchar not null, proposal_reason varchar not null,
        ifd_original double, ifd_base double, ifd_candidate double,
        r_ifd_original double, r_ifd_base double, r_ifd_candidate double, created_at timestamp not null)""",
    """create table reflections (
        job_id varchar not null, dataset_id bigint not null, example_id bigint not null, final_id bigint not null,
        kept boolean not null, why varchar not null, primary key (job_id, example_id))""",
    """create table decisions (
        decision_id bigint primary key, pair_id bigint not null, reviewer varchar not null, verdict varchar not null,
        result_id bigint, note varchar, seconds double, shown json not null, undoes bigint,
        press varchar not null unique, decided_at timestamp not null)""",
    """create table exports (
        export_id bigint primary key, dataset_id bigint not null, file_name varchar not null, sha256 varchar not null,
        manifest json not null, exported_at timestamp not null, exported_by varchar)""",
    """create view standing_decisions as
        select * from decisions d
        where d.verdict <> 'undo' and not exists (select 1 from decisions u where u.undoes = d.decision_id)""",
    """create view current_decisions as
        select * from standing_decisions
        where verdict in ('accept', 'reject', 'edit', 'new_instruction', 'new_response')
        qualify row_number() over (partition by pair_id order by decision_id desc) = 1""",
    """create view current_flags as
        select * from standing_decisions where verdict in ('flag', 'unflag')
        qualify row_number() over (partition by pair_id order by decision_id desc) = 1""",
)

V2: tuple[str, ...] = (
    """create table embeddings (
        scorer_id bigint not null, example_id bigint not null, vector float[] not null,
        primary key (scorer_id, example_id))""",
)

V3_SEQUENCES = ("study_ids", "run_ids", "result_ids", "fit_ids", "rule_ids")

V3: tuple[str, ...] = (
    *(f"create sequence {name}" for name in V3_SEQUENCES),
    """create table evaluation_sets (
        dataset_id bigint primary key, marked_at timestamp not null, marked_by varchar)""",
    """create table studies (
        study_id bigint primary key, name varchar not null unique, kind varchar not null,
        evaluation_id bigint not null, settings json not null, design json not null,
        created_at timestamp not null, created_by varchar)""",
    """create table runs (
        run_id bigint primary key, study_id bigint not null, number bigint not null, label varchar not null,
        role varchar not null, dataset_id bigint, n_rows bigint not null, seed bigint not null, details json not null,
        unique (study_id, number))""",
    "create table study_jobs (job_id varchar primary key, study_id bigint not null)",
    """create table run_results (
        result_id bigint primary key, run_id bigint not null, job_id varchar not null, outcome varchar not null,
        reason varchar, loss_nats double, n_outputs bigint not null, n_outputs_null bigint not null,
        train_loss_nats double, seconds double, details json not null, finished_at timestamp not null,
        unique (job_id, run_id), check (loss_nats is not null or reason is not null))""",
    """create table run_losses (
        result_id bigint not null, example_id bigint not null, loss_nats double, n_tokens bigint not null,
        reason varchar, primary key (result_id, example_id), check (loss_nats is not null or reason is not null))""",
    """create table run_curves (
        result_id bigint not null, step bigint not null, epoch double not null, loss_nats double,
        learning_rate double, grad_norm double, seconds double, primary key (result_id, step))""",
    """create table dataset_distances (
        dataset_id bigint not null, embedding_id bigint not null, neighbour bigint not null, mean double, sd double,
        n_values bigint not null, n_vectors bigint not null, primary key (dataset_id, embedding_id, neighbour))""",
    """create table fits (
        fit_id bigint primary key, name varchar not null unique, study_ids json not null, result json not null,
        created_at timestamp not null, created_by varchar)""",
    """create table rules (
        rule_id bigint primary key, name varchar not null unique, origin varchar not null, fit_id bigint,
        rule json not null, note varchar, created_at timestamp not null, created_by varchar)""",
    """create view current_run_results as
        select * from run_results
        qualify row_number() over (partition by run_id order by outcome = 'done' desc, result_id desc) = 1""",
    """insert into evaluation_sets select dataset_id, created_at, created_by from datasets where kind = 'evaluation'""",
)

V4_SEQUENCES = ("answer_set_ids", "comparison_ids", "judge_ids", "judgement_ids", "lm_eval_ids", "experiment_ids")

V4: tuple[str, ...] = (
    *(f"create sequence {name}" for name in V4_SEQUENCES),
    """create table prompts (
        version varchar primary key, stage varchar not null, content json not null,
        first_used_at timestamp not null)""",
    "alter table pairs add column round bigint default 1",
    "alter table teacher_calls add column round bigint default 1",
    "alter table teacher_calls add column number bigint default 0",
    """create table candidates (
        call_id varchar not null, job_id varchar not null, example_id bigint not null, stage varchar not null,
        round bigint not null, number bigint not null, base_id bigint not null, candidate_id bigint not null,
        ifd double, r_ifd double, reason varchar, chosen boolean not null,
        primary key (job_id, example_id, call_id))""",
    """create table answer_sets (
        answer_set_id bigint primary key, name varchar not null unique, dataset_id bigint not null,
        origin varchar not null, settings json not null, job_id varchar, created_at timestamp not null,
        created_by varchar)""",
    """create table answers (
        answer_set_id bigint not null, item_id bigint not null, answer varchar, reason varchar, n_tokens bigint,
        finish_reason varchar, seconds double, primary key (answer_set_id, item_id),
        check (answer is not null or reason is not null))""",
    """create table comparisons (
        comparison_id bigint primary key, name varchar not null unique, dataset_id bigint not null,
        first_id bigint not null, second_id bigint not null, details json not null, created_at timestamp not null,
        created_by varchar)""",
    """create table comparison_jobs (
        job_id varchar primary key, comparison_id bigint not null, judge_id bigint not null)""",
    """create table judges (
        judge_id bigint primary key, identity varchar not null unique, kind varchar not null, name varchar not null,
        model varchar, prompt_version varchar, settings json not null)""",
    """create table judgements (
        judgement_id bigint primary key, comparison_id bigint not null, judge_id bigint not null,
        item_id bigint not null, swapped boolean not null, attempt bigint not null,
        score_first double, score_second double, preference tinyint, outcome varchar not null, reason varchar,
        raw varchar, job_id varchar, call_id varchar, prompt_tokens bigint, completion_tokens bigint, cost_usd double,
        seconds double, press varchar unique, undoes bigint, judged_at timestamp not null,
        check (preference is not null or reason is not null))""",
    """create view current_judgements as
        select * from judgements j
        where j.outcome <> 'undo' and not exists (select 1 from judgements u where u.undoes = j.judgement_id)
        qualify row_number() over (partition by comparison_id, judge_id, item_id, swapped
            order by preference is not null desc, judgement_id desc) = 1""",
    """create table lm_eval_results (
        result_id bigint primary key, job_id varchar not null, label varchar not null, model json not null,
        task varchar not null, metric varchar not null, filter varchar not null, value double, stderr double,
        n_samples bigint, n_shots bigint, higher_is_better boolean, reason varchar, details json not null,
        finished_at timestamp not null, unique (job_id, task, metric, filter),
        check (value is not null or reason is not null))""",
    """create table experiments (
        experiment_id bigint primary key, name varchar not null unique, dataset_id bigint not null,
        settings json not null, held boolean not null, created_at timestamp not null, created_by varchar)""",
    """create table experiment_links (
        experiment_id bigint not null, step varchar not null, kind varchar not null, reference varchar not null,
        details json not null, linked_at timestamp not null, primary key (experiment_id, step, kind, reference))""",
)

V5_SEQUENCES = (
    "role_change_ids", "campaign_ids", "campaign_event_ids", "lease_ids", "bulk_ids", "filter_ids", "pair_list_ids",
    "pair_model_ids", "board_event_ids", "vote_ids", "ballot_ids", "reflection_ids",
)  # fmt: skip

V5: tuple[str, ...] = (
    *(f"create sequence {name}" for name in V5_SEQUENCES),
    """create table people (
        identity varchar primary key, name varchar not null, source varchar not null,
        first_seen_at timestamp not null, last_seen_at timestamp not null)""",
    """create table role_changes (
        change_id bigint primary key, identity varchar not null, role varchar not null, changed_at timestamp not null,
        changed_by varchar, check (role in ('viewer', 'reviewer', 'admin', 'none')))""",
    """create view current_roles as
        select * from role_changes qualify row_number() over (partition by identity order by change_id desc) = 1""",
    """create table preferences (
        identity varchar not null, name varchar not null, value json not null, saved_at timestamp not null,
        primary key (identity, name))""",
    """create table drafts (
        identity varchar not null, pair_id bigint not null, texts json not null, saved_at timestamp not null,
        primary key (identity, pair_id))""",
    """create table campaigns (
        campaign_id bigint primary key, name varchar not null unique, overlap bigint not null, settings json not null,
        created_at timestamp not null, created_by varchar, check (overlap >= 1))""",
    """create table campaign_events (
        event_id bigint primary key, campaign_id bigint not null, kind varchar not null, details json not null,
        happened_at timestamp not null, done_by varchar)""",
    """create table campaign_pairs (
        campaign_id bigint not null, pair_id bigint not null, position bigint not null, gold varchar,
        added_at timestamp default (now() at time zone 'utc'), primary key (campaign_id, pair_id))""",
    """create table campaign_people (
        campaign_id bigint not null, identity varchar not null, primary key (campaign_id, identity))""",
    """create table leases (
        lease_id bigint primary key, campaign_id bigint not null, pair_id bigint not null, identity varchar not null,
        session varchar not null, taken_at timestamp not null)""",
    """create table bulk_actions (
        bulk_id bigint primary key, filter json not null, verdict varchar not null, n_pairs bigint not null,
        note varchar, undoes bigint, done_at timestamp not null, done_by varchar not null)""",
    """create table saved_filters (
        filter_id bigint primary key, page varchar not null, name varchar not null, params json not null,
        owner varchar not null, shared boolean not null, saved_at timestamp not null, unique (page, owner, name))""",
    """create table pair_lists (
        list_id bigint primary key, name varchar not null, details json not null, created_at timestamp not null,
        created_by varchar)""",
    """create table pair_list_members (
        list_id bigint not null, position bigint not null, pair_id bigint not null, primary key (list_id, position))""",
    """create table pair_models (
        model_id bigint primary key, settings json not null, metrics json not null, n_decisions bigint not null,
        last_decision_id bigint not null, trained_at timestamp not null, trained_by varchar)""",
    """create table pair_predictions (
        model_id bigint not null, pair_id bigint not null, p_accept double not null, held_out boolean not null,
        primary key (model_id, pair_id))""",
    """create table board_events (
        event_id bigint primary key, kind varchar not null, details json not null, happened_at timestamp not null,
        done_by varchar)""",
    """create table votes (
        vote_id bigint primary key, pair_id bigint not null, opened_at timestamp not null, opened_by varchar)""",
    """create table ballots (
        ballot_id bigint primary key, vote_id bigint not null, round bigint not null, identity varchar not null,
        verdict varchar not null, press varchar not null unique, cast_at timestamp not null)""",
    "drop view current_flags",
    "drop view current_decisions",
    "drop view standing_decisions",
    "alter table decisions add column purpose varchar default 'review'",
    "alter table decisions add column campaign_id bigint",
    "alter table decisions add column bulk_id bigint",
    "alter table reflections add column reflection_id bigint default nextval('reflection_ids')",
    "alter table reflections add column collected_at timestamp",
    "alter table reflections alter column collected_at set default (now() at time zone 'utc')",
    """create view standing_decisions as
        select * from decisions d
        where d.verdict <> 'undo' and not exists (
            select 1 from decisions u
            where u.undoes = d.decision_id and u.pair_id = d.pair_id and u.verdict = 'undo')""",
    """create view current_flags as
        select * from standing_decisions where verdict in ('flag', 'unflag')
        qualify row_number() over (partition by pair_id order by decision_id desc) = 1""",
    """create view reviewer_decisions as
        select * from standing_decisions
        where verdict in ('accept', 'reject', 'edit', 'new_instruction', 'new_response') and purpose = 'review'
        qualify row_number() over (partition by pair_id, reviewer order by decision_id desc) = 1""",
    # Aggregates by pair, not windows over all decisions, and the pair's id of the aggregate: so a condition on the
    # pair reaches the scans below (10 ms at 200,000 decisions), and the whole view stays within 100 ms.
    """create view current_decisions as
        select s.pair_id, d.* exclude (pair_id) from (
            select pair_id, case
                when coalesce(max(overlap), 1) = 1 then max(decision_id)
                when arg_max(purpose, decision_id) filter (purpose <> 'review') = 'adjudication'
                    then max(decision_id) filter (purpose <> 'review')
                when count(*) filter (purpose = 'review') >= max(overlap)
                    and min(word) filter (purpose = 'review') = max(word) filter (purpose = 'review')
                    then max(decision_id)
                else max(decision_id) filter (purpose <> 'review') end decision_id
            from (
                select w.*, o.overlap from (
                    select pair_id, purpose, max(decision_id) decision_id,
                        arg_max(verdict || ':' || coalesce(result_id, -1), decision_id) word
                    from standing_decisions
                    where verdict in ('accept', 'reject', 'edit', 'new_instruction', 'new_response')
                        and purpose in ('review', 'adjudication', 'bulk')
                    group by pair_id, purpose, case when purpose = 'review' then reviewer end) w
                left join (
                    select p.pair_id, max(c.overlap) overlap from campaign_pairs p
                    join campaigns c on c.campaign_id = p.campaign_id where c.overlap > 1 group by p.pair_id) o
                on o.pair_id = w.pair_id)
            group by pair_id) s
        join decisions d on d.decision_id = s.decision_id and d.pair_id = s.pair_id""",
)
