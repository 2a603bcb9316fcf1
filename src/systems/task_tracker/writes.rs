//! Whether acknowledged writes are there: what the users' steps tell of themselves, and what is read back in the end.
//!
//! The one rule: without a check users do exactly what they did before there was one. With it a create carries its
//! operation's name as its description and as its `Idempotency-Key`, and an update carries it as the title.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::json;

use crate::experiment::{Experiment, Problem};
use crate::load::{Does, Step, Track};
use crate::measure::lost::{Found, Thing, Total};
use crate::systems::ReadBack;

/// The setting that asks for the check, or leaves it out; without it, it is made where something is broken.
pub const KEY: &str = "check_writes";

/// Whether the writes of an experiment are checked.
pub fn are_checked(experiment: &Experiment) -> bool {
    let asked = experiment.settings.get(KEY).and_then(serde_json::Value::as_bool);
    experiment.scenario.is_none() && asked.unwrap_or(!experiment.faults.is_empty())
}

/// # Errors
/// When the setting is no truth value, or asks for what cannot be done.
pub fn check(experiment: &Experiment) -> Result<(), Problem> {
    let at = format!("settings.{KEY}");
    match experiment.settings.get(KEY) {
        None | Some(serde_json::Value::Bool(false)) => Ok(()),
        Some(serde_json::Value::Bool(true)) if experiment.scenario.is_none() => Ok(()),
        Some(serde_json::Value::Bool(true)) => {
            let message = "check_writes needs the users' usual steps, whose writes it knows; take out [[step]] and \
                           [[setup]], or check_writes";
            Err(Problem::new(at, message))
        }
        Some(value) => Err(Problem::new(at, format!("{KEY} = {value}: true or false is needed"))),
    }
}

/// What the report says of it, where something is broken.
pub fn notes(experiment: &Experiment) -> Vec<String> {
    let honesty = "Killing a process does not test whether the disk is honest: what the process had written stays in the \
                   page cache of the system that goes on, and a power failure would lose what was not on the disk yet.";
    let keyed = "Writes are checked: creates carry an Idempotency-Key, so the gateway may repeat them, and every user's \
                 tasks are read back after the faults are healed.";
    let mut notes = Vec::new();
    notes.extend((!experiment.faults.is_empty()).then(|| honesty.to_owned()));
    notes.extend(are_checked(experiment).then(|| keyed.to_owned()));
    notes
}

/// A step as it is done where writes are checked.
pub fn tracked(step: Step) -> Step {
    let state = [("version", "/version"), ("title", "/title"), ("status", "/status")];
    let with = |does, arg: Option<&str>, sets: &[(&str, &str)], got: &[(&str, &str)]| {
        let owned = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Some(Track { does, arg: arg.map(str::to_owned), sets: owned(sets), got: owned(got) })
    };
    let task = Some("task");
    match step.name.as_deref().unwrap_or_default() {
        "create" => {
            let mut headers = step.headers.clone();
            headers.insert("idempotency-key".to_owned(), "{{op}}".to_owned());
            let body = r#"{"title":"task {{n}} of user {{user}}","description":"{{op}}","priority":"medium"}"#;
            let track = with(Does::Create, None, &[], &[("id", "/id"), state[0], state[1], state[2]]);
            Step { headers, body: Some(body.to_owned()), track, ..step }
        }
        "get" => Step { track: with(Does::Read, task, &[], &state), ..step },
        "update" => Step {
            body: Some(r#"{"title":"{{op}}","priority":"high"}"#.to_owned()),
            track: with(Does::Change, task, &[("title", "{{op}}")], &state),
            ..step
        },
        "complete" => Step { track: with(Does::Change, task, &[("status", "done")], &state), ..step },
        "incomplete" => Step { track: with(Does::Change, task, &[("status", "todo")], &state), ..step },
        "delete" => Step { track: with(Does::Delete, task, &[], &[]), ..step },
        "list" => Step { track: with(Does::Count, None, &[], &[("total", "/total")]), ..step },
        "stats" => Step { track: with(Does::Count, None, &[], &[("total", "/total_tasks")]), ..step },
        _ => step,
    }
}

/// Users that are read at a time.
const AT_A_TIME: usize = 4;

/// How often a user is tried.
const TRIES: u32 = 6;

/// After the first try that failed; then twice as long each time.
const WAIT: Duration = Duration::from_millis(200);

/// How long a system that says it cannot answer now is asked again: what it was offered while it was down it may have to
/// work off first.
const BUSY_WITHIN: Duration = Duration::from_secs(90);

/// The longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// All users together, and for each of them: checking a password takes its time.
const WITHIN: (Duration, Duration) = (Duration::from_secs(60), Duration::from_millis(500));

/// The most tasks of a page.
const PAGE: usize = 1000;

/// Reads the tasks and totals of every user.
///
/// # Errors
/// When it is interrupted.
pub fn read_back(wanted: &ReadBack<'_>) -> anyhow::Result<Option<Vec<Found>>> {
    if !are_checked(wanted.experiment) {
        return Ok(None);
    }
    let clock = kit::Clock::real();
    let within = WITHIN.0 + WITHIN.1 * wanted.users.len() as u32;
    let begun_ns = clock.now_ns();
    let deadline_ns = begun_ns + within.as_nanos() as u64;
    let busy_until_ns = begun_ns + BUSY_WITHIN.as_nanos() as u64;
    let timeout = Some(wanted.experiment.timeout);
    let config = ureq::Agent::config_builder().timeout_global(timeout).http_status_as_error(false).build();
    let reader = Reader { wanted, agent: config.into(), deadline_ns, busy_until_ns, within, clock };
    let next = AtomicUsize::new(0);
    let read = || {
        let mine = std::iter::from_fn(|| wanted.users.get(next.fetch_add(1, Ordering::Relaxed)));
        mine.map(|user| reader.user(*user)).collect::<Vec<_>>()
    };
    let found: Vec<Found> = thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(read)).collect();
        let ended = threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a reader panicked")));
        ended.collect::<anyhow::Result<Vec<_>>>().map(|found| found.into_iter().flatten().collect())
    })?;
    anyhow::ensure!(!wanted.interrupt.is_asked(), "interrupted");
    Ok(Some(found))
}

struct Reader<'a> {
    wanted: &'a ReadBack<'a>,
    agent: ureq::Agent,
    deadline_ns: u64,
    busy_until_ns: u64,
    within: Duration,
    clock: kit::Clock,
}

/// No answer, or one that says not now: asking again may help.
#[derive(Debug)]
struct Busy(String);

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Busy {}

#[derive(Deserialize)]
struct Token {
    access_token: String,
}

#[derive(Deserialize)]
struct Page {
    tasks: Vec<Task>,
    total: u64,
}

#[derive(Deserialize)]
struct Task {
    id: i64,
    title: String,
    description: Option<String>,
    status: String,
    #[serde(default)]
    version: Option<u64>,
}

#[derive(Deserialize)]
struct Stats {
    total_tasks: u64,
    completed_tasks: u64,
}

impl Reader<'_> {
    /// Tries until what is read adds up, so that a page that moved while it was read is not taken for a loss.
    fn user(&self, user: u64) -> Found {
        let mut wait = WAIT;
        for tries in 1.. {
            if self.clock.now_ns() > self.deadline_ns {
                break;
            }
            let read = self.read(user);
            let is_busy = read.as_ref().is_err_and(|error| error.is::<Busy>());
            let found = match read {
                Ok((things, totals)) => Found { user, things: Ok(things), totals },
                Err(error) => Found { user, things: Err(format!("{error:#}")), totals: Vec::new() },
            };
            let adds_up = found.things.is_ok() && found.totals.iter().all(|total| total.said == total.counted);
            let may_wait = if is_busy { self.clock.now_ns() < self.busy_until_ns } else { tries < TRIES };
            if adds_up || !may_wait || self.wanted.interrupt.wait(wait) {
                return found;
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        let why = format!("not everything could be read within {} s", self.within.as_secs());
        Found { user, things: Err(why), totals: Vec::new() }
    }

    fn read(&self, user: u64) -> anyhow::Result<(Vec<Thing>, Vec<Total>)> {
        let name = format!("u{user}-{}", self.wanted.run);
        let login = json!({ "username": name, "password": format!("correct horse {user}") });
        let token: Token = self.ask("/api/v1/auth/login", None, Some(&login))?;
        let mut tasks: BTreeMap<i64, Task> = BTreeMap::new();
        let mut skip = 0;
        let said = loop {
            let path = format!("/api/v1/tasks/?skip={skip}&limit={PAGE}");
            let page: Page = self.ask(&path, Some(&token), None)?;
            let length = page.tasks.len();
            tasks.extend(page.tasks.into_iter().map(|task| (task.id, task)));
            skip += PAGE;
            if length < PAGE {
                break page.total;
            }
        };
        let stats: Stats = self.ask("/api/v1/stats/", Some(&token), None)?;
        let (there, done) = (tasks.len(), tasks.values().filter(|task| task.status == "done").count());
        let total = |name: &str, said, counted: usize| Total { name: name.to_owned(), said, counted: counted as u64 };
        let totals = vec![
            total("total", said, there),
            total("total_tasks", stats.total_tasks, there),
            total("completed_tasks", stats.completed_tasks, done),
        ];
        Ok((tasks.into_values().map(thing).collect(), totals))
    }

    fn ask<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        token: Option<&Token>,
        body: Option<&serde_json::Value>,
    ) -> anyhow::Result<T> {
        let url = format!("{}{path}", self.wanted.base_url);
        let short = path.split('?').next().unwrap_or_default();
        let asked = match (body, token) {
            (Some(body), _) => self.agent.post(&url).header("content-type", "application/json").send(body.to_string()),
            (None, Some(Token { access_token })) => {
                self.agent.get(&url).header("authorization", format!("Bearer {access_token}")).call()
            }
            (None, None) => self.agent.get(&url).call(),
        };
        let mut answer = asked.map_err(|error| Busy(format!("asking {short}: {error}")))?;
        let status = answer.status();
        let text = answer.body_mut().with_config().limit(1 << 28).read_to_string();
        let text = text.map_err(|error| Busy(format!("reading {short}: {error}")))?;
        if status.is_server_error() {
            anyhow::bail!(Busy(format!("{short} answered {}: {}", status.as_u16(), text.trim())));
        }
        anyhow::ensure!(status.is_success(), "{short} answered {}: {}", status.as_u16(), text.trim());
        serde_json::from_str(&text).with_context(|| format!("{short} answered something else"))
    }
}

fn thing(task: Task) -> Thing {
    Thing {
        id: task.id.to_string(),
        op: task.description,
        version: task.version,
        state: BTreeMap::from([("title".to_owned(), task.title), ("status".to_owned(), task.status)]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::TaskTracker;
    use super::*;
    use crate::experiment::{Levels, file};
    use crate::systems::System as _;

    fn parse(more: &str) -> anyhow::Result<Experiment> {
        file::parse(&format!("system = \"task-tracker\"\nduration = \"60s\"\n{more}\n"), "x", "x")
    }

    const FAULT: &str = "[[fault]]\nat = \"30s\"\nkind = \"kill\"\nrole = \"monolith\"\n";

    #[test]
    fn writes_are_checked_where_something_is_broken_unless_the_experiment_says_otherwise() {
        for (more, faults, checked) in [
            ("", "", false),
            ("check_writes = true", "", true),
            ("", FAULT, true),
            ("check_writes = false", FAULT, false),
        ] {
            let experiment = parse(&format!("[load]\nusers = 1\n[settings]\n{more}\n{faults}")).unwrap();
            let scenario = TaskTracker.scenario(&experiment, &Levels::new());
            assert_eq!(scenario.is_tracked(), checked, "{more} {faults}");
            let keyed = |step: &&Step| step.headers.contains_key("idempotency-key");
            let creates = scenario.setup.iter().chain(&scenario.steps).filter(keyed).count();
            assert_eq!(creates, if checked { 2 } else { 0 }, "in the set-up and while measuring");
            assert_eq!(TaskTracker.role_settings(&experiment, &Levels::new()).get(KEY), None);
            let honest =
                TaskTracker.notes(&experiment).iter().any(|note| note.starts_with("Killing a process does not"));
            assert_eq!(honest, !faults.is_empty());
        }
    }

    #[test]
    fn without_a_check_users_do_what_they_always_did() {
        let plain = TaskTracker.scenario(&parse("[load]\nusers = 1").unwrap(), &Levels::new());
        let shown: Vec<_> =
            plain.setup.iter().chain(&plain.steps).map(|step| (step.body.as_deref(), &step.headers)).collect();
        let bodies: Vec<_> = shown.iter().filter_map(|(body, _)| *body).collect();
        assert!(bodies.iter().all(|body| !body.contains("{{op}}")), "{bodies:?}");
        assert_eq!(bodies.iter().filter(|body| body.contains("written while measuring")).count(), 2);
        assert!(serde_json::to_string(&plain).unwrap().find("track").is_none(), "nothing of it is archived");
    }

    #[test]
    fn a_check_of_steps_that_nobody_knows_is_refused() {
        for (more, part) in [
            ("[settings]\ncheck_writes = 1", "check_writes = 1: true or false is needed"),
            ("[settings]\ncheck_writes = true\n[[step]]\npath = \"/\"", "needs the users' usual steps"),
        ] {
            let error = parse(&format!("[load]\nusers = 1\n{more}")).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
