//! A list of Stripe's, and how far it has been read: a row of `sync_runs`.

use crate::postgres::error::Failure;
use crate::postgres::spi::{Composite, Row, Statement};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use stripe::resources::EVENTS;
use stripe::{Environment, Walk};

/// What is due, which is worked through like a list, after all of them.
pub const DUE: &str = "due";

/// How often in a row Stripe may fail before a step fails with it. The rests before that make two
/// minutes.
const PATIENCE: i32 = 8;

/// The longest rest, unless Stripe asks for a longer one.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// The list is read.
    Listing(Walk),
    /// Objects are asked for one by one, in the order of type and id; those up to this one were.
    Asking(Option<(String, String)>),
    /// Nothing.
    Complete,
}

impl Progress {
    fn status(&self) -> &'static str {
        match self {
            Progress::Listing(_) => "listing",
            Progress::Asking(_) => "asking",
            Progress::Complete => "complete",
        }
    }
}

/// One list of one environment.
///
/// Its functions work as the tables' owner.
#[derive(Debug)]
pub struct Run {
    environment: Environment,
    /// The list's name.
    pub object: String,
    /// How far it was read.
    pub progress: Progress,
    /// How many objects the list showed.
    pub listed: i64,
    /// How many were asked for by id.
    pub asked: i64,
    /// How many could not be projected.
    pub failed: i64,
    /// When the run began, on Stripe's clock: before its first request. In seconds since 1970.
    pub began_at: Option<i64>,
    /// What happened before was history when the list was read for the first time.
    pub history_until: Option<i64>,
    /// Events up to here were read.
    pub read_until: Option<i64>,
    /// Was the list ever read to its end?
    pub completed_before: bool,
    /// Is it too early to ask Stripe again?
    pub is_resting: bool,
    attempts: i32,
    rest: Option<Duration>,
    last_error: Option<String>,
}

impl Run {
    /// Has these lists read anew, and then what is due asked about, unless a run that is not over
    /// has them in it: then it goes on, and takes in those that it has not.
    pub fn begin(environment: Environment, lists: &[&str]) -> Result<(), Failure> {
        // Lists of one run were requested at one time. What is due comes last, so it alone tells
        // nothing of a run of which lists are left that are not asked for here.
        static BEGIN: Statement = Statement::new(
            "with run as (
                 select coalesce(max(requested_at), now()) as requested_at
                   from payments.sync_runs
                  where environment = $1
                    and status <> 'complete'
                    and (object = any ($2::text[])
                         or object = $3 and not exists (
                                select
                                  from payments.sync_runs
                                 where environment = $1
                                   and status <> 'complete'
                                   and object <> all ($2::text[] || array[$3, $4])
                            ))
             )
             insert into payments.sync_runs as list (environment, object, status, cursor, requested_at)
             select $1, object, progress.status, progress.cursor, run.requested_at
               from run
              cross join (
                     select unnest($2::text[]), 'listing', $5::json
                      union all
                     select $3, 'asking', $6::json
                   ) as progress (object, status, cursor)
                 on conflict (environment, object) do update
                set status = excluded.status,
                    cursor = excluded.cursor,
                    requested_at = excluded.requested_at,
                    listed = 0,
                    asked = 0,
                    failed = 0,
                    began_at = null,
                    attempts = 0,
                    resume_at = null,
                    last_error = null,
                    updated_at = clock_timestamp()
              where list.requested_at is distinct from excluded.requested_at",
        );
        BEGIN.execute(&[
            environment.as_str().into(),
            lists.to_vec().into(),
            DUE.into(),
            EVENTS.name.into(),
            json(&Progress::Listing(Walk::default()))?.into(),
            json(&Progress::Asking(None))?.into(),
        ])?;
        Ok(())
    }

    /// Has the events since a second read.
    pub fn begin_events(environment: Environment, since: Option<i64>) -> Result<(), Failure> {
        static BEGIN: Statement = Statement::new(
            "insert into payments.sync_runs (environment, object, status, cursor, requested_at)
             values ($1, $2, 'listing', $3::json, now())
                 on conflict (environment, object) do update
                set status = excluded.status,
                    cursor = excluded.cursor,
                    requested_at = excluded.requested_at,
                    listed = 0,
                    began_at = null",
        );
        let progress = Progress::Listing(Walk::since(since));
        BEGIN.execute(&[
            environment.as_str().into(),
            EVENTS.name.into(),
            json(&progress)?.into(),
        ])?;
        Ok(())
    }

    /// The first of these lists that is not read to its end, its row locked.
    pub fn unfinished(environment: Environment, objects: &[&str]) -> Result<Option<Run>, Failure> {
        static UNFINISHED: Statement = Statement::new(
            "select object, cursor::text, listed, asked, failed,
                    extract(epoch from began_at)::bigint,
                    extract(epoch from history_until)::bigint,
                    extract(epoch from read_until)::bigint,
                    completed_at is not null,
                    coalesce(resume_at > clock_timestamp(), false),
                    attempts
               from payments.sync_runs
              where environment = $1
                and object = any ($2::text[])
                and status <> 'complete'
              order by array_position($2::text[], object)
              limit 1
                for update",
        );
        UNFINISHED.first(
            &[environment.as_str().into(), objects.to_vec().into()],
            |row| Run::of(environment, row),
        )
    }

    fn of(environment: Environment, row: &Row) -> Result<Run, Failure> {
        let cursor: String = row.required(2)?;
        Ok(Run {
            environment,
            object: row.required(1)?,
            progress: serde_json::from_str(&cursor).map_err(unreadable)?,
            listed: row.required(3)?,
            asked: row.required(4)?,
            failed: row.required(5)?,
            began_at: row.get(6)?,
            history_until: row.get(7)?,
            read_until: row.get(8)?,
            completed_before: row.required(9)?,
            is_resting: row.required(10)?,
            attempts: row.required(11)?,
            rest: None,
            last_error: None,
        })
    }

    /// Notes when the list was begun, at the first answer. What was before the first answer to the
    /// first run of a list is history, and so for all lists of that run.
    pub fn began(&mut self, as_of: i64) -> Result<i64, Failure> {
        static HISTORY: Statement = Statement::new(
            "update payments.sync_runs
                set history_until = to_timestamp($2)
              where environment = $1
                and history_until is null",
        );
        if self.history_until.is_none() {
            HISTORY.execute(&[self.environment.as_str().into(), (as_of as f64).into()])?;
            self.history_until = Some(as_of);
        }
        Ok(*self.began_at.get_or_insert(as_of))
    }

    /// Stripe answered.
    pub fn went_well(&mut self) {
        self.attempts = 0;
    }

    /// Stripe failed in a way that passes: the list rests for a while, longer each time, and at
    /// least as long as Stripe asks for. False once patience is at its end.
    pub fn rests(&mut self, at_least: Duration, error: String) -> bool {
        let rest = Duration::from_secs(1 << self.attempts.clamp(0, 6)).min(LONGEST_REST);
        self.attempts += 1;
        self.rest = Some(rest.max(at_least));
        self.last_error = Some(error);
        self.attempts < PATIENCE
    }

    /// Keeps how far the list was read.
    pub fn save(&self) -> Result<(), Failure> {
        static SAVE: Statement = Statement::new(
            "update payments.sync_runs
                set status = $3,
                    cursor = $4::json,
                    listed = $5,
                    asked = $6,
                    failed = $7,
                    began_at = to_timestamp($8),
                    read_until = to_timestamp($9),
                    attempts = $10,
                    resume_at = clock_timestamp() + make_interval(secs => $11),
                    last_error = $12,
                    completed_at = case
                        when $3 = 'complete' then clock_timestamp()
                        else completed_at
                    end,
                    updated_at = clock_timestamp()
              where environment = $1
                and object = $2",
        );
        let seconds = |time: Option<i64>| time.map(|time| time as f64);
        SAVE.execute(&[
            self.environment.as_str().into(),
            self.object.as_str().into(),
            self.progress.status().into(),
            json(&self.progress)?.into(),
            self.listed.into(),
            self.asked.into(),
            self.failed.into(),
            seconds(self.began_at).into(),
            seconds(self.read_until).into(),
            self.attempts.into(),
            self.rest.map(|rest| rest.as_secs_f64()).into(),
            self.last_error.as_deref().into(),
        ])?;
        Ok(())
    }

    /// The row, as SQL is to see it.
    pub fn row(&self) -> Result<Option<Composite>, Failure> {
        // By name, because a table that users added columns to has others than the type.
        static ROW: Statement = Statement::new(
            "select jsonb_populate_record(null::payments.sync_run, to_jsonb(run))
               from payments.sync_runs as run
              where run.environment = $1
                and run.object = $2",
        );
        let arguments = [
            self.environment.as_str().into(),
            self.object.as_str().into(),
        ];
        Ok(ROW.first(&arguments, |row| row.composite(1))?.flatten())
    }
}

fn json(progress: &Progress) -> Result<String, Failure> {
    serde_json::to_string(progress).map_err(unreadable)
}

fn unreadable(error: serde_json::Error) -> Failure {
    Failure::internal(format!(
        "a row of payments.sync_runs cannot be read: {error}"
    ))
}
