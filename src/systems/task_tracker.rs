//! The task tracker: one application, as a monolith or as microservices.

mod resilience;
mod writes;

use std::collections::BTreeMap;
use std::time::Duration;

use kit::Role;

use super::{Assembly, Factor, FactorKind, Part, ReadBack, System};
use crate::deploy::trial::{SET_UP_WITHIN, TIMEOUTS_OF_AN_OPERATION};
use crate::experiment::{DeploymentKind, Experiment, Level, Levels, Problem, cells};
use crate::load::{Check, Extract, Scenario, Step};
use crate::measure::lost::Found;

/// The adapter.
pub struct TaskTracker;

/// Tasks that each account has before measuring, unless the experiment says otherwise.
const TASKS_PER_USER: u32 = 10;

/// A setting that is the lab's and not the services', as [`writes::KEY`] is.
const TASKS_PER_USER_KEY: &str = "tasks_per_user";

/// The setting that depends on how long a trial is.
const TOKEN_MINUTES_KEY: &str = "token_minutes";

impl System for TaskTracker {
    fn name(&self) -> &'static str {
        "task-tracker"
    }

    fn question(&self) -> &'static str {
        "monolith or microservices, and what does each cost?"
    }

    fn roles(&self) -> &'static [Role] {
        task_tracker::ROLES
    }

    fn deployments(&self) -> &'static [DeploymentKind] {
        &[DeploymentKind::InProcess, DeploymentKind::Processes, DeploymentKind::External]
    }

    fn factors(&self) -> &'static [Factor] {
        &[
            Factor {
                name: "architecture",
                kind: FactorKind::OneOf(&["monolith", "microservices"]),
                about: "the same application as one process or as four",
            },
            Factor { name: "users", kind: FactorKind::Count, about: "concurrent users (closed load)" },
            Factor { name: "rate", kind: FactorKind::Quantity, about: "requests a second (open load)" },
            Factor {
                name: "replicas",
                kind: FactorKind::Count,
                about: "copies of the monolith, or of each service behind the gateway",
            },
            Factor {
                name: resilience::FACTOR,
                kind: FactorKind::OneOf(resilience::LEVELS),
                about: "what protects the gateway and its services, one mechanism after another",
            },
        ]
    }

    fn backends(&self) -> &'static [(&'static str, &'static [&'static str])] {
        &[("database", &["sqlite", "postgres"])]
    }

    fn check(&self, experiment: &Experiment) -> Result<(), Problem> {
        if experiment.scenario.as_ref().is_some_and(|scenario| scenario.steps.is_empty()) {
            return Err(Problem::new(
                "setup",
                "there is a [[setup]] but no [[step]]; write what users do while measured",
            ));
        }
        let (settings, tasks) = split_settings(&experiment.settings);
        tasks.map_err(|message| Problem::new(format!("settings.{TASKS_PER_USER_KEY}"), message))?;
        serde_json::from_value::<task_tracker::Settings>(settings)
            .map_err(|error| Problem::new("settings", format!("settings of task-tracker: {error}")))?;
        resilience::check(experiment)?;
        writes::check(experiment)?;
        if experiment.deployment == DeploymentKind::External {
            for architecture in architectures(experiment) {
                if !experiment.external.contains_key(&architecture) && !experiment.external.contains_key("default") {
                    let message = format!(
                        "where is the {architecture}? write [external] {architecture} = \"http://127.0.0.1:9000\""
                    );
                    return Err(Problem::new("external", message));
                }
            }
        }
        Ok(())
    }

    fn assemble(&self, experiment: &Experiment, levels: &Levels) -> Assembly {
        let of_factor = match levels.get("replicas") {
            Some(Level::Int(replicas)) => u32::try_from(*replicas).ok(),
            _ => None,
        };
        let replicas = |role: &str| {
            let given = experiment.roles.get(role).and_then(|limits| limits.replicas);
            given.or(if role == "gateway" { None } else { of_factor }).unwrap_or(1)
        };
        let part = |role, peers, database, port| Part {
            role,
            replicas: replicas(role),
            peers,
            database,
            port,
            under_test: true,
            measures: false,
        };
        match levels.get("architecture") {
            Some(Level::Text(architecture)) if architecture == "microservices" => Assembly {
                parts: vec![
                    part("user-service", &[], Some("users"), 8001),
                    part("task-service", &[], Some("tasks"), 8002),
                    part("stats-service", &["task-service"], None, 8003),
                    part("gateway", &["user-service", "task-service", "stats-service"], None, 8000),
                ],
                entry: Some("gateway"),
            },
            _ => Assembly { parts: vec![part("monolith", &[], Some("monolith"), 9000)], entry: Some("monolith") },
        }
    }

    fn scenario(&self, experiment: &Experiment, _: &Levels) -> Scenario {
        if let Some(scenario) = &experiment.scenario {
            return scenario.clone();
        }
        let tasks = split_settings(&experiment.settings).1.unwrap_or(TASKS_PER_USER);
        let mut scenario = Scenario { setup: setup(tasks), steps: mix(tasks.clamp(1, 20)), in_turn: false };
        if writes::are_checked(experiment) {
            let Scenario { setup, steps, .. } = &mut scenario;
            for steps in [setup, steps] {
                *steps = std::mem::take(steps).into_iter().map(writes::tracked).collect();
            }
        }
        scenario
    }

    fn read_back(&self, wanted: &ReadBack<'_>) -> anyhow::Result<Option<Vec<Found>>> {
        writes::read_back(wanted)
    }

    fn role_settings(&self, experiment: &Experiment, levels: &Levels) -> serde_json::Value {
        let mut settings = split_settings(&experiment.settings).0;
        if let Some(Level::Text(level)) = levels.get(resilience::FACTOR) {
            resilience::apply(&mut settings, level);
        }
        if let (Some(minutes), Some(table)) = (longer_tokens(experiment), settings.as_object_mut()) {
            table.insert(TOKEN_MINUTES_KEY.to_owned(), minutes.into());
        }
        settings
    }

    fn notes(&self, experiment: &Experiment) -> Vec<String> {
        let argon2 = experiment.settings.get("argon2").map_or_else(|| "default".to_owned(), ToString::to_string);
        let database = experiment.backends.get("database").map_or("sqlite", String::as_str);
        let mut notes = vec![
            format!(
                "Password hashing (argon2id) cost: {}. It is paid in set-up, before anything is measured.",
                argon2.trim_matches('"')
            ),
            format!("Database: {database}; a fresh one for every trial."),
            "Memory is the sum of the processes' resident sets; pages of the program that they share count in each."
                .to_owned(),
            "The load generator's users: as many accounts as users, never shared, each with its own tasks and token."
                .to_owned(),
        ];
        notes.extend(resilience::note(experiment));
        notes.extend(writes::notes(experiment));
        if let Some(minutes) = longer_tokens(experiment) {
            notes.push(format!("Tokens are good for {minutes} minutes, so that none expires while it is measured."));
        }
        if database == "postgres" {
            let not_counted = "CPU and memory of the Postgres server are not counted; SQLite's are, inside the roles.";
            notes.push(not_counted.to_owned());
        }
        notes
    }
}

/// How many minutes tokens must be good for, where that is longer than usual and the experiment does not say: users log
/// in before the load begins, and never again.
fn longer_tokens(experiment: &Experiment) -> Option<u32> {
    let is_given = experiment.settings.get(TOKEN_MINUTES_KEY).is_some();
    if is_given || experiment.deployment == DeploymentKind::External {
        return None;
    }
    let mut cells = cells(experiment);
    if let Some(search) = &experiment.search {
        cells.iter_mut().for_each(|cell| drop(cell.insert(search.factor.clone(), Level::Int(search.between.1))));
    }
    let ends_s = cells.iter().map(|cell| experiment.window(&experiment.load.at(cell)).end).max()?;
    let last = Duration::from_secs(ends_s.into()) + SET_UP_WITHIN + experiment.timeout * TIMEOUTS_OF_AN_OPERATION;
    let minutes = u32::try_from(last.as_secs().div_ceil(60)).unwrap_or(u32::MAX);
    (minutes > task_tracker::Settings::TOKEN_MINUTES).then_some(minutes)
}

/// The services' settings without the lab's own, and the number of tasks that each account starts with.
fn split_settings(settings: &serde_json::Value) -> (serde_json::Value, Result<u32, String>) {
    let mut settings = settings.clone();
    let tasks = settings.as_object_mut().and_then(|table| {
        table.remove(writes::KEY);
        table.remove(TASKS_PER_USER_KEY)
    });
    let tasks = match tasks {
        None => Ok(TASKS_PER_USER),
        Some(value) => value
            .as_u64()
            .and_then(|tasks| u32::try_from(tasks).ok())
            .ok_or_else(|| format!("{TASKS_PER_USER_KEY} = {value}: a whole number is needed")),
    };
    if settings.is_null() {
        settings = serde_json::json!({});
    }
    (settings, tasks)
}

fn architectures(experiment: &Experiment) -> Vec<String> {
    match experiment.factors.get("architecture") {
        Some(levels) => levels.iter().map(ToString::to_string).collect(),
        None => vec!["monolith".to_owned()],
    }
}

/// An account of the user's own, its token, and some tasks.
fn setup(tasks: u32) -> Vec<Step> {
    let account = r#"{"email":"u{{user}}-{{run}}@example.org","username":"u{{user}}-{{run}}","password":"correct horse {{user}}"}"#;
    let login = r#"{"username":"u{{user}}-{{run}}","password":"correct horse {{user}}"}"#;
    let json = || BTreeMap::from([("content-type".to_owned(), "application/json".to_owned())]);
    let mut steps = vec![
        Step {
            headers: json(),
            body: Some(account.to_owned()),
            check: check(&[201], &[("/id", "integer")]),
            ..step("register", "POST", "/api/v1/auth/register", 1)
        },
        Step {
            headers: json(),
            body: Some(login.to_owned()),
            extract: BTreeMap::from([("token".to_owned(), pointer("/access_token", false))]),
            check: check(&[200], &[("/access_token", "string")]),
            ..step("login", "POST", "/api/v1/auth/login", 1)
        },
    ];
    if tasks > 0 {
        steps.push(Step { repeat: tasks, ..create() });
    }
    steps
}

/// What users do, with the weights of the published study. The step names are those of tables and figures.
///
/// A page holds `page` tasks: as many as an account starts with, so that answers do not grow while measuring.
fn mix(page: u32) -> Vec<Step> {
    const PAGE: &[(&str, &str)] = &[("/tasks", "array"), ("/total", "integer"), ("/limit", "integer")];
    const TASK: &[(&str, &str)] =
        &[("/id", "integer"), ("/title", "string"), ("/status", "string"), ("/is_completed", "boolean")];
    let one = "/api/v1/tasks/{{pick:task}}";
    vec![
        Step { check: check(&[200], PAGE), ..user_step("list", "GET", &format!("/api/v1/tasks/?limit={page}"), 70) },
        Step {
            check: check(&[200], PAGE),
            ..user_step("list filtered", "GET", &format!("/api/v1/tasks/?limit={page}&status=todo"), 21)
        },
        Step { check: check(&[200], TASK), ..user_step("get", "GET", one, 14) },
        Step { weight: 20, ..create() },
        Step {
            body: Some(r#"{"title":"task {{n}}, revised","priority":"high"}"#.to_owned()),
            check: check(&[200], TASK),
            ..user_step("update", "PUT", one, 7)
        },
        Step {
            check: check(&[200], TASK),
            ..user_step("complete", "PATCH", "/api/v1/tasks/{{pick:task}}/complete", 3)
        },
        Step {
            check: check(&[200], TASK),
            ..user_step("incomplete", "PATCH", "/api/v1/tasks/{{pick:task}}/incomplete", 2)
        },
        Step { check: check(&[204], &[]), ..user_step("delete", "DELETE", "/api/v1/tasks/{{take:task}}", 3) },
        Step {
            check: check(
                &[200],
                &[("/total_tasks", "integer"), ("/completed_tasks", "integer"), ("/completed_percentage", "number")],
            ),
            ..user_step("stats", "GET", "/api/v1/stats/", 10)
        },
        Step {
            check: check(&[200], &[("/id", "integer"), ("/username", "string")]),
            ..user_step("me", "GET", "/api/v1/auth/me", 7)
        },
    ]
}

fn create() -> Step {
    Step {
        body: Some(
            r#"{"title":"task {{n}} of user {{user}}","description":"written while measuring","priority":"medium"}"#
                .to_owned(),
        ),
        extract: BTreeMap::from([("task".to_owned(), pointer("/id", true))]),
        check: check(&[201], &[("/id", "integer"), ("/title", "string")]),
        ..user_step("create", "POST", "/api/v1/tasks/", 1)
    }
}

fn user_step(name: &str, method: &str, path: &str, weight: u32) -> Step {
    let mut headers = BTreeMap::from([("authorization".to_owned(), "Bearer {{token}}".to_owned())]);
    if matches!(method, "POST" | "PUT") {
        headers.insert("content-type".to_owned(), "application/json".to_owned());
    }
    Step { headers, ..step(name, method, path, weight) }
}

fn step(name: &str, method: &str, path: &str, weight: u32) -> Step {
    Step {
        name: Some(name.to_owned()),
        method: method.to_owned(),
        path: path.to_owned(),
        headers: BTreeMap::new(),
        body: None,
        weight,
        repeat: 1,
        think: None,
        extract: BTreeMap::new(),
        check: Check::default(),
        track: None,
    }
}

fn check(status: &[u16], json: &[(&str, &str)]) -> Check {
    let json = json.iter().map(|(pointer, kind)| ((*pointer).to_owned(), (*kind).to_owned())).collect();
    Check { status: status.to_vec(), json }
}

fn pointer(json: &str, collect: bool) -> Extract {
    Extract { json: Some(json.to_owned()), header: None, collect }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_until_the_last_request_of_the_longest_trial() {
        let minutes = |more: &str| {
            let text = format!("system = \"task-tracker\"\n{more}");
            let experiment = crate::experiment::file::parse(&text, "x", "x").unwrap();
            let settings: task_tracker::Settings =
                serde_json::from_value(TaskTracker.role_settings(&experiment, &Levels::new())).unwrap();
            let told = TaskTracker.notes(&experiment).iter().any(|note| note.starts_with("Tokens are good for"));
            (settings.token_minutes.map(u32::from), told)
        };
        for (more, expected) in [
            ("duration = \"10s\"\n[load]\nusers = 9", (None, false)),
            // Up to 15 minutes of set-up come first, and up to 40 s of waiting for the last answers at the end.
            ("duration = \"2h\"\nwarmup = \"10s\"\n[load]\nusers = 1", (Some(136), true)),
            ("duration = \"2h\"\n[load]\nusers = 1\n[settings]\ntoken_minutes = 5", (Some(5), false)),
            (
                "deployment = \"external\"\nduration = \"2h\"\nexternal.default = \"http://h\"\n[load]\nusers = 1",
                (None, false),
            ),
            ("[factors]\nusers = [4, 60000]\n[load]\nspawn_rate = 10", (Some(116), true)),
            (
                "slo = [\"errors <= 1%\"]\n[search]\nfactor = \"users\"\nfind = \"capacity\"\nbetween = [1, 60000]\n\
                 [load]\nspawn_rate = 10",
                (Some(116), true),
            ),
        ] {
            assert_eq!(minutes(more), expected, "{more}");
        }
    }
}
