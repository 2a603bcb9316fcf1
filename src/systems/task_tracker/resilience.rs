//! The factor `resilience`: what protects the gateway and its services, one mechanism after another.
//!
//! The one rule: a level says which mechanisms there are, `[settings]` says how large each is. A size that is given holds
//! in every level that has its mechanism; a switch that is given is refused, because it would make two levels the same.

use serde_json::{Map, Value, json};

use crate::experiment::{DeploymentKind, Experiment, Level, Levels, Problem, cells};

/// The factor's name.
pub const FACTOR: &str = "resilience";

/// Its levels, each with all that the ones before it have.
pub const LEVELS: &[&str] = &["none", "timeout", "retry", "budget", "breaker", "shedding"];

/// Tries of a request in the level whose retries nobody thought about.
const TRIES_WITHOUT_BUDGET: u32 = 3;

/// What a level decides alone, as paths into `[settings]`.
const SWITCHES: &[&str] = &[
    "drop_expired",
    "gateway.retries.on",
    "gateway.retries.budget",
    "gateway.retries.jitter",
    "gateway.retries.after_timeout",
    "gateway.breaker.on",
];

/// Whether the factor makes sense in an experiment.
///
/// # Errors
/// A cell without a gateway that the lab starts, or a setting that a level decides.
pub fn check(experiment: &Experiment) -> Result<(), Problem> {
    if !experiment.factors.contains_key(FACTOR) {
        return Ok(());
    }
    let at = format!("factors.{FACTOR}");
    if experiment.deployment == DeploymentKind::External {
        let message = "resilience is set where the gateway is started; run in-process or processes";
        return Err(Problem::new(at, message));
    }
    let has_gateway =
        |cell: &Levels| matches!(cell.get("architecture"), Some(Level::Text(name)) if name == "microservices");
    if !cells(experiment).iter().all(has_gateway) {
        let message = "resilience is the gateway's, and a monolith has none; write architecture = [\"microservices\"] \
                       under [factors]";
        return Err(Problem::new(at, message));
    }
    let given = |path: &&&str| experiment.settings.pointer(&format!("/{}", path.replace('.', "/"))).is_some();
    match SWITCHES.iter().find(given) {
        None => Ok(()),
        Some(switch) => Err(Problem::new(
            format!("settings.{switch}"),
            format!("{switch} is what the factor resilience switches; take it out, or the factor"),
        )),
    }
}

/// The settings of one level.
pub fn apply(settings: &mut Value, level: &str) {
    let Some(rank) = LEVELS.iter().position(|name| *name == level) else { return };
    let [times_out, retries, has_budget, has_breaker, sheds] = [1, 2, 3, 4, 5].map(|least| rank >= least);
    put(settings, "drop_expired", json!(sheds));
    put(settings, "gateway.retries.on", json!(retries));
    put(settings, "gateway.retries.budget", json!(has_budget));
    put(settings, "gateway.retries.jitter", json!(has_budget));
    put(settings, "gateway.retries.after_timeout", json!(retries && !has_budget));
    put(settings, "gateway.breaker.on", json!(has_breaker));
    if !times_out {
        for size in ["gateway.deadline_ms", "gateway.try_timeout_ms", "gateway.connect_timeout_ms"] {
            put(settings, size, json!(0));
        }
    }
    if !sheds {
        put(settings, "max_in_flight", json!(0));
        put(settings, "gateway.max_in_flight", json!(0));
    }
    if retries && !has_budget {
        put_unless_given(settings, "gateway.retries.max_tries", json!(TRIES_WITHOUT_BUDGET));
    }
    // Leaving a replica alone that seems not ready is what a breaker does before there are failures to count.
    put_unless_given(settings, "gateway.balance", json!(if has_breaker { "ready" } else { "round-robin" }));
}

/// What the report says of the levels.
pub fn note(experiment: &Experiment) -> Option<String> {
    experiment.factors.contains_key(FACTOR).then(|| {
        "Resilience: each level has what the ones before it have. timeout: a time for each try and each request; retry: \
         failed and late tries are repeated at once; budget: late ones are not, the others after a random wait and as a \
         share of the requests; breaker: replicas that fail or are not ready are left alone; shedding: what is too much \
         is refused, and what nobody waits for is dropped."
            .to_owned()
    })
}

fn put(settings: &mut Value, path: &str, value: Value) {
    if let Some((table, key)) = place(settings, path) {
        table.insert(key.to_owned(), value);
    }
}

fn put_unless_given(settings: &mut Value, path: &str, value: Value) {
    if let Some((table, key)) = place(settings, path) {
        table.entry(key).or_insert(value);
    }
}

/// The table that a path ends in, made where it is missing, and the path's last part.
fn place<'a, 'b>(settings: &'a mut Value, path: &'b str) -> Option<(&'a mut Map<String, Value>, &'b str)> {
    let (tables, key) = path.rsplit_once('.').map_or((None, path), |(tables, key)| (Some(tables), key));
    let mut at = settings;
    for table in tables.into_iter().flat_map(|tables| tables.split('.')) {
        at = at.as_object_mut()?.entry(table).or_insert_with(|| json!({}));
    }
    Some((at.as_object_mut()?, key))
}

#[cfg(test)]
mod tests {
    use task_tracker::settings::Balance;

    use super::*;

    const HEAD: &str = "system = \"task-tracker\"\n[load]\nusers = 1\n";
    const SERVICES: &str = "[factors]\narchitecture = [\"microservices\"]\nresilience = [\"none\", \"retry\"]\n";

    fn at(level: &str, given: Value) -> task_tracker::Settings {
        let mut settings = given;
        apply(&mut settings, level);
        serde_json::from_value(settings).unwrap()
    }

    #[test]
    fn each_level_adds_its_mechanism_and_keeps_those_before_it() {
        let mechanisms = |level: &str| {
            let settings = at(level, json!({}));
            let gateway = settings.gateway;
            [
                gateway.deadline_ms > 0 && gateway.try_timeout_ms > 0,
                gateway.retries.on,
                gateway.retries.budget && gateway.retries.jitter,
                gateway.breaker.on && gateway.balance == Balance::Ready,
                gateway.max_in_flight > 0 && settings.max_in_flight != Some(0) && settings.drop_expired == Some(true),
            ]
        };
        for (rank, level) in LEVELS.iter().enumerate() {
            assert_eq!(mechanisms(level), [0, 1, 2, 3, 4].map(|mechanism| mechanism < rank), "{level}");
        }
        assert_eq!(at("shedding", json!({})).gateway, task_tracker::settings::GatewaySettings::default());
    }

    #[test]
    fn only_retries_that_nobody_thought_about_repeat_what_timed_out() {
        for level in LEVELS {
            let retries = at(level, json!({})).gateway.retries;
            assert_eq!(retries.after_timeout, *level == "retry", "{level}");
            assert_eq!(retries.max_tries, if *level == "retry" { 3 } else { 2 }, "{level}");
        }
    }

    #[test]
    fn a_size_that_is_given_holds_wherever_its_mechanism_is() {
        let given = json!({
            "max_in_flight": 7,
            "gateway": { "deadline_ms": 900, "balance": "least-in-flight", "retries": { "max_tries": 5 } },
        });
        for (level, deadline_ms, max_in_flight) in [("none", 0, 0), ("retry", 900, 0), ("shedding", 900, 7)] {
            let settings = at(level, given.clone());
            assert_eq!(settings.gateway.deadline_ms, deadline_ms, "{level}");
            assert_eq!(settings.max_in_flight, Some(max_in_flight), "{level}");
            assert_eq!(settings.gateway.retries.max_tries, 5, "{level}");
            assert_eq!(settings.gateway.balance, Balance::LeastInFlight, "{level}");
        }
    }

    #[test]
    fn without_a_gateway_or_with_a_switch_of_its_own_it_is_refused() {
        let parse = |text: String| crate::experiment::file::parse(&text, "x", "x");
        assert!(parse(format!("{HEAD}{SERVICES}[settings.gateway.retries]\nmax_tries = 4\n")).is_ok());
        for (rest, expected) in [
            ("[factors]\nresilience = [\"none\"]\n", "a monolith has none"),
            (
                "[factors]\narchitecture = [\"monolith\", \"microservices\"]\nresilience = [\"none\"]\n",
                "architecture = [\"microservices\"]",
            ),
            ("[factors]\nresilience = [\"all\"]\n", "none, timeout, retry"),
            (&format!("{SERVICES}[settings.gateway.retries]\nbudget = true\n"), "gateway.retries.budget is what"),
            (&format!("{SERVICES}[settings]\ndrop_expired = true\n"), "drop_expired is what"),
            (&format!("{SERVICES}[external]\ndefault = \"http://h\"\n"), "in-process or processes"),
        ] {
            let head = if rest.contains("external") {
                HEAD.replace("[load]", "deployment = \"external\"\n[load]")
            } else {
                HEAD.to_owned()
            };
            let error = parse(format!("{head}{rest}")).unwrap_err().to_string();
            assert!(error.contains(expected), "{rest}: {error}");
        }
    }
}
