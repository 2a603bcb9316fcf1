//! Whether an experiment makes sense: alone, with its system, and its parts with each other. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Experiment, LoadPlan, Problem, cells};
use crate::faults;
use crate::measure::stream;
use crate::systems::{self, FactorKind, System};
use crate::units;

impl Experiment {
    /// Whether everything makes sense together.
    ///
    /// # Errors
    /// The place in the file (`factors.users`), and what is wrong with it and what is allowed.
    pub fn check(&self) -> Result<(), Problem> {
        let Some(system) = systems::find(&self.system) else {
            return Err(Problem::new(
                "system",
                format!("unknown system {:?}; there are {}", self.system, systems::names()),
            ));
        };
        if !system.deployments().contains(&self.deployment) {
            let allowed: Vec<_> = system.deployments().iter().map(ToString::to_string).collect();
            return Err(Problem::new(
                "deployment",
                format!("{} does not run {}; it runs {}", self.system, self.deployment, allowed.join(", ")),
            ));
        }
        self.check_numbers()?;
        self.check_slo(system)?;
        self.check_factors(system)?;
        self.check_load()?;
        self.check_search(system)?;
        self.check_backends(system)?;
        system.check(self)?;
        self.check_roles(system)?;
        faults::check::check(self, system)?;
        if self.search.is_none() && cells(self).is_empty() {
            return Err(Problem::new("exclude", "every combination of levels is excluded; nothing is left to run"));
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), Problem> {
        let at_least_one_second = |name: &str, value: Duration| {
            if value < Duration::from_secs(1) || value.subsec_nanos() != 0 {
                let text = units::format_duration(value);
                return Err(Problem::new(
                    name,
                    format!("{name} is {text}; it is counted in whole seconds, at least 1s"),
                ));
            }
            Ok(())
        };
        at_least_one_second("duration", self.duration)?;
        let positive = |name: &str, value: u64| match value {
            0 => Err(Problem::new(name, format!("{name} is 0; at least 1 is needed"))),
            _ => Ok(()),
        };
        positive("trials", u64::from(self.trials))?;
        positive("load.workers", u64::from(self.load_workers))?;
        positive("timeout", self.timeout.as_nanos() as u64)?;
        if self.sample_interval < Duration::from_millis(100) {
            return Err(Problem::new("sample_interval", "sample_interval is below 100ms: sampling would be the load"));
        }
        Ok(())
    }

    /// Some objectives only a stream can meet.
    fn check_slo(&self, system: &dyn System) -> Result<(), Problem> {
        let of_streams = self.slo.iter().position(|slo| stream::is_key(&slo.key));
        match of_streams.filter(|_| !system.is_stream()) {
            Some(index) => Err(Problem::new(
                format!("slo.{index}"),
                format!(
                    "{:?} is asked of streams, and {} is none; write p95 <= 250ms, errors <= 1% or goodput >= 500/s",
                    self.slo[index].text, self.system
                ),
            )),
            None => Ok(()),
        }
    }

    fn check_factors(&self, system: &dyn System) -> Result<(), Problem> {
        for (name, levels) in &self.factors {
            let at = format!("factors.{name}");
            let factor = find_factor(system, name, &at)?;
            if levels.is_empty() {
                return Err(Problem::new(at, format!("factor {name} has no level")));
            }
            for (index, level) in levels.iter().enumerate() {
                let at = format!("{at}.{index}");
                factor.kind.check(name, level).map_err(|message| Problem::new(at.clone(), message))?;
                if levels[..index].contains(level) {
                    return Err(Problem::new(at, format!("level {level} of {name} is there twice")));
                }
            }
        }
        for (index, rule) in self.exclude.iter().enumerate() {
            for (factor, level) in rule {
                if !self.factors.get(factor).is_some_and(|levels| levels.contains(level)) {
                    let message = format!("exclude names {factor} = {level}, which no cell has");
                    return Err(Problem::new(format!("exclude.{index}"), message));
                }
            }
        }
        Ok(())
    }

    fn check_load(&self) -> Result<(), Problem> {
        let searched = self.search.as_ref().map(|search| search.factor.as_str());
        let has = |factor: &str| self.factors.contains_key(factor) || searched == Some(factor);
        match &self.load {
            LoadPlan::Closed { users, spawn_rate, .. } => {
                if has("rate") {
                    return Err(Problem::new(
                        "factors.rate",
                        "rate is a factor of open load; write mode = \"open\" under [load], or use users",
                    ));
                }
                if *users == 0 && !has("users") {
                    return Err(Problem::new(
                        "load.users",
                        "zero users; write users under [load] or as a factor, at least 1",
                    ));
                }
                if !(*spawn_rate > 0.0 && spawn_rate.is_finite()) {
                    return Err(Problem::new(
                        "load.spawn_rate",
                        format!("spawn_rate is {spawn_rate}; it must be above 0"),
                    ));
                }
            }
            LoadPlan::Open { stages, connections, .. } => {
                if has("users") {
                    return Err(Problem::new(
                        "factors.users",
                        "users is a factor of closed load; write mode = \"closed\" under [load], or use rate",
                    ));
                }
                if stages.is_empty() && !has("rate") {
                    return Err(Problem::new(
                        "load.rate",
                        "no rate; write rate or stages under [load], or rate as a factor",
                    ));
                }
                let wrong = |rate: f64| !(rate >= 0.0 && rate.is_finite());
                if stages.iter().any(|stage| wrong(stage.from_per_s) || wrong(stage.to_per_s)) {
                    return Err(Problem::new("load.rate", "a rate must be a number, 0 or above"));
                }
                let planned = stages.iter().map(|stage| stage.duration).sum::<Option<Duration>>();
                let needed = self.warmup + self.duration;
                if let Some(planned) = planned.filter(|planned| !stages.is_empty() && *planned < needed) {
                    let (planned, needed) = (units::format_duration(planned), units::format_duration(needed));
                    let message = format!(
                        "the stages last {planned}, warmup and duration {needed}; make the stages as long, or measure less"
                    );
                    return Err(Problem::new("load.stages", message));
                }
                if *connections == 0 {
                    return Err(Problem::new("load.connections", "connections is 0; at least 1 is needed"));
                }
            }
        }
        Ok(())
    }

    fn check_search(&self, system: &dyn System) -> Result<(), Problem> {
        let Some(search) = &self.search else { return Ok(()) };
        let factor = find_factor(system, &search.factor, "search.factor")?;
        if matches!(factor.kind, FactorKind::OneOf(_)) {
            return Err(Problem::new("search.factor", format!("{} has names, not numbers, as levels", search.factor)));
        }
        if self.factors.contains_key(&search.factor) {
            let message = format!("{} is searched; take it out of [factors]", search.factor);
            return Err(Problem::new(format!("factors.{}", search.factor), message));
        }
        if self.slo.is_empty() {
            let example = if system.is_stream() { "stable" } else { "p95 <= 250ms" };
            let message = format!("a search needs an SLO to decide by; write slo = [\"{example}\"]");
            return Err(Problem::new("search", message));
        }
        let (low, high) = search.between;
        if low < 1 || high <= low {
            return Err(Problem::new(
                "search.between",
                format!("between [{low}, {high}]: the first must be at least 1 and below the second"),
            ));
        }
        if !(search.within > 0.0 && search.within < 1.0) {
            return Err(Problem::new("search.within", "within must be above 0% and below 100%"));
        }
        Ok(())
    }

    fn check_backends(&self, system: &dyn System) -> Result<(), Problem> {
        for (name, value) in &self.backends {
            let at = format!("backends.{name}");
            let Some((_, allowed)) = system.backends().iter().find(|(backend, _)| backend == name) else {
                let names: Vec<_> = system.backends().iter().map(|(backend, _)| *backend).collect();
                let message = format!("{} has no backend {name:?}; it has {}", self.system, list(&names));
                return Err(Problem::new(at, message));
            };
            if !allowed.contains(&value.as_str()) {
                return Err(Problem::new(at, format!("unknown {name} {value:?}; there are {}", list(allowed))));
            }
        }
        Ok(())
    }

    fn check_roles(&self, system: &dyn System) -> Result<(), Problem> {
        let in_use = self.roles_in_use(system);
        for (role, limits) in &self.roles {
            let at = format!("roles.{role}");
            let known: Vec<_> = system.roles().iter().map(|role| role.name).chain(["load"]).collect();
            if !known.contains(&role.as_str()) {
                return Err(Problem::new(at, format!("unknown role {role:?}; {} has {}", self.system, list(&known))));
            }
            if !in_use.contains(role.as_str()) {
                return Err(Problem::new(
                    at,
                    format!("no cell of the plan has the role {role}; take it out, or add the cell"),
                ));
            }
            if limits.replicas == Some(0) {
                return Err(Problem::new(at, format!("role {role} has 0 replicas; at least 1 is needed")));
            }
            if limits.memory.is_some() {
                let kind = self.deployment;
                return Err(Problem::new(
                    at,
                    format!("the deployment {kind} cannot limit the memory of a role; take memory out"),
                ));
            }
            if let Some(cpus) = &limits.cpus {
                units::parse_cpus(cpus).map_err(|message| Problem::new(at, message))?;
            }
        }
        Ok(())
    }

    /// Roles that at least one cell has.
    fn roles_in_use(&self, system: &dyn System) -> BTreeSet<&'static str> {
        let mut roles = BTreeSet::new();
        for levels in self.cells_to_check() {
            let assembly = system.assemble(self, &levels);
            roles.extend(assembly.entry.map(|_| "load"));
            roles.extend(assembly.parts.iter().map(|part| part.role));
        }
        roles
    }
}

fn find_factor<'a>(system: &'a dyn System, name: &str, at: &str) -> Result<&'a systems::Factor, Problem> {
    system.factors().iter().find(|factor| factor.name == name).ok_or_else(|| {
        let names: Vec<_> = system.factors().iter().map(|factor| factor.name).collect();
        Problem::new(at, format!("unknown factor {name:?}; {} has {}", system.name(), list(&names)))
    })
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
