//! Any HTTP service that runs already: the experiment says where it is and what users do.

use kit::Role;

use super::{Assembly, Factor, FactorKind, System};
use crate::experiment::{DeploymentKind, Experiment, Levels, Problem};
use crate::load::Scenario;

/// The adapter.
pub struct Http;

impl System for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    fn question(&self) -> &'static str {
        "how does a service of your own behave under load?"
    }

    fn roles(&self) -> &'static [Role] {
        &[]
    }

    fn deployments(&self) -> &'static [DeploymentKind] {
        &[DeploymentKind::External]
    }

    fn factors(&self) -> &'static [Factor] {
        &[
            Factor { name: "users", kind: FactorKind::Count, about: "concurrent users (closed load)" },
            Factor { name: "rate", kind: FactorKind::Quantity, about: "requests a second (open load)" },
        ]
    }

    fn backends(&self) -> &'static [(&'static str, &'static [&'static str])] {
        &[]
    }

    fn check(&self, experiment: &Experiment) -> Result<(), Problem> {
        if experiment.scenario.as_ref().is_none_or(|scenario| scenario.steps.is_empty()) {
            return Err(Problem::new(
                "step",
                "http needs to know what users do; write at least one [[step]] with a path",
            ));
        }
        if !experiment.external.contains_key("default") {
            return Err(Problem::new(
                "external",
                "http needs to know where the service is; write [external] default = \"http://127.0.0.1:8080\"",
            ));
        }
        match experiment.settings.as_object().and_then(|settings| settings.keys().next()) {
            Some(key) => Err(Problem::new(format!("settings.{key}"), "http has no settings")),
            None => Ok(()),
        }
    }

    fn assemble(&self, _: &Experiment, _: &Levels) -> Assembly {
        Assembly { parts: Vec::new(), entry: Some("default") }
    }

    fn scenario(&self, experiment: &Experiment, _: &Levels) -> Scenario {
        experiment.scenario.clone().unwrap_or_default()
    }

    fn role_settings(&self, _: &Experiment, _: &Levels) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn notes(&self, _: &Experiment) -> Vec<String> {
        Vec::new()
    }
}
