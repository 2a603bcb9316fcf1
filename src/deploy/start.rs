//! Starts what a trial needs, in order: databases, roles each after its peers, generators with their set-up.
//!
//! A link that is going to be broken is led through a proxy from the start, so that only the fault makes a difference.

use std::collections::{BTreeMap, BTreeSet};

use kit::RoleConfig;

use super::running::{Launched, Link, Running, Slot};
use super::trial::{READY_WITHIN, SET_UP_WITHIN, Site};
use super::{Deployment, pinning};
use crate::archive::TrialFiles;
use crate::error::surroundings;
use crate::experiment::{DeploymentKind, Experiment, LoadPlan, Trial};
use crate::faults::journal::Intent;
use crate::faults::noted::Noted;
use crate::faults::{FaultKind, Planned};
use crate::load::LoadSettings;
use crate::measure::Participant;
use crate::systems::{Assembly, Part};
use crate::units;

/// The lab's own generator, as a part of every cell whose system has an entry for it.
const LOAD: Part =
    Part { role: "load", replicas: 1, peers: &[], database: None, port: 0, under_test: false, measures: true };

/// The lab's own proxy, in each link that is going to be broken.
const PROXY: Part = Part { role: "proxy", measures: false, ..LOAD };

/// Starts one trial's replicas.
pub struct Starting<'r, 'a> {
    /// Where, and for what.
    pub site: &'r Site<'a>,
    /// Which trial.
    pub trial: &'r Trial,
    /// Its roles.
    pub assembly: &'r Assembly,
    /// What will be broken.
    pub planned: &'r [Planned],
    /// Where logs go.
    pub files: &'r TrialFiles,
    /// What has been started.
    pub running: Running<'a>,
    admin_token: String,
}

impl<'r, 'a> Starting<'r, 'a> {
    /// Starts nothing yet.
    ///
    /// # Errors
    /// When there is no place for scratch files, or no randomness.
    pub fn new(
        site: &'r Site<'a>,
        trial: &'r Trial,
        assembly: &'r Assembly,
        planned: &'r [Planned],
        files: &'r TrialFiles,
    ) -> anyhow::Result<Self> {
        let scratch = tempfile::Builder::new().prefix("scalelab-").tempdir();
        let scratch =
            scratch.map_err(|error| surroundings(format!("cannot make a scratch folder: {error}; set TMPDIR")))?;
        let scratch_noted = Some(Noted::new(site.journal, Intent::Folder { path: scratch.path().to_owned() })?);
        let running = Running {
            slots: Vec::new(),
            links: Vec::new(),
            databases: None,
            databases_noted: Vec::new(),
            scratch: Some(scratch),
            scratch_noted,
        };
        Ok(Self { site, trial, assembly, planned, files, running, admin_token: kit::secret()? })
    }

    /// Starts the system's databases and roles.
    ///
    /// # Errors
    /// Why something did not come up, as surroundings.
    pub fn system(&mut self) -> anyhow::Result<()> {
        let site = self.site;
        if site.experiment.deployment == DeploymentKind::External {
            self.running.slots.push(Slot::external());
            return Ok(());
        }
        let names: Vec<_> = self.assembly.parts.iter().filter_map(|part| part.database).collect();
        let unique = format!("{}_{}", site.run, self.trial.index);
        let folder = self.running.scratch.as_ref().map(|scratch| scratch.path().to_owned()).unwrap_or_default();
        for database in site.databases.intents(&names, &unique) {
            self.running.databases_noted.push(Noted::new(site.journal, database)?);
        }
        let made = site.databases.make(&names, &folder, &unique);
        self.running.databases = Some(made.inspect_err(|_| {
            // Some may have been made: healing drops those that are there.
            self.running.databases_noted.drain(..).for_each(Noted::keep);
        })?);
        let secret = kit::secret()?;
        for part in &self.assembly.parts {
            let mut peers = BTreeMap::new();
            for peer in part.peers {
                peers.insert((*peer).to_owned(), self.addresses_for(part.role, peer)?);
            }
            for replica in 1..=part.replicas {
                if site.interrupt.is_asked() {
                    return Ok(());
                }
                let mut config = RoleConfig::new(part.role);
                config.replica = replica;
                config.peers.clone_from(&peers);
                config.settings = site.system.role_settings(site.experiment, &self.trial.levels);
                config.secrets.insert("jwt_key".to_owned(), secret.clone());
                let url = part.database.and_then(|name| self.running.databases.as_ref()?.url(name));
                if let Some(url) = url {
                    config.secrets.insert("database_url".to_owned(), url.to_owned());
                }
                self.launch(site.deployment, site.system.name(), part, config)?;
            }
        }
        Ok(())
    }

    /// Starts the generators, which make their users' accounts.
    ///
    /// # Errors
    /// As [`Starting::system`].
    pub fn load(&mut self, entry: &str, plan: &LoadPlan) -> anyhow::Result<()> {
        let (site, experiment) = (self.site, self.site.experiment);
        let base_url =
            (experiment.deployment == DeploymentKind::External).then(|| external_url(experiment, self.trial)).flatten();
        let scenario = site.system.scenario(experiment, &self.trial.levels);
        let settings = LoadSettings {
            history: scenario.is_tracked(),
            scenario,
            plan: plan.clone(),
            workers: experiment.load_workers,
            timeout: experiment.timeout,
            ..LoadSettings::new(base_url)
        };
        let target = self.addresses_for(LOAD.role, entry)?;
        for replica in 1..=experiment.load_workers {
            let mut config = RoleConfig::new(LOAD.role);
            config.replica = replica;
            config.settings = serde_json::to_value(&settings)?;
            config.peers.insert("target".to_owned(), target.clone());
            self.launch(site.load_deployment, "lab", &LOAD, config)?;
            if site.interrupt.is_asked() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Where `from` finds the replicas of a role: behind proxies, where the link to them is going to be broken.
    fn addresses_for(&mut self, from: &str, role: &str) -> anyhow::Result<Vec<String>> {
        let direct = self.running.addresses(role);
        let mut addresses = Vec::new();
        for (replica, addr) in (1..).zip(direct) {
            let mut addr = addr;
            // Bytes are delayed, cut and reset between the caller and the proxy that answers in the role's place.
            for http in kinds_of_proxies(self.planned, from, role, replica).into_iter().rev() {
                addr = self.proxy(from, role, replica, http, addr)?;
            }
            addresses.push(addr);
        }
        Ok(addresses)
    }

    fn proxy(&mut self, from: &str, role: &str, replica: u32, http: bool, to: String) -> anyhow::Result<String> {
        let mut config = RoleConfig::new(PROXY.role);
        config.replica = 1 + self.running.links.len() as u32;
        config.settings = serde_json::json!({ "http": http });
        config.peers.insert("upstream".to_owned(), vec![to]);
        let slot = self.running.slots.len();
        self.launch(self.site.load_deployment, "lab", &PROXY, config)?;
        let (from, role) = (from.to_owned(), role.to_owned());
        self.running.links.push(Link { from, role, replica, http, slot });
        // Nothing was started when the run was interrupted, and nothing will be after it.
        Ok(self.running.slots.get(slot).map(|slot| slot.addr.clone()).unwrap_or_default())
    }

    fn launch(
        &mut self,
        deployment: &'a dyn Deployment,
        system: &'a str,
        part: &Part,
        mut config: RoleConfig,
    ) -> anyhow::Result<()> {
        let Part { role, under_test, measures, .. } = *part;
        let site = self.site;
        let share = if under_test { &site.budget.system } else { &site.budget.load };
        let number = config.replica;
        // Part of the names of accounts: short, and new for every trial.
        config.run = format!("{}-{}", site.run, self.trial.index);
        config.seed = self.trial.seed;
        config.admin_token.clone_from(&self.admin_token);
        let launched = Launched {
            deployment,
            system,
            role: crate::systems::find_role(system, role)?,
            config,
            cpus: cpus_of(site, role, share.as_deref())?,
            log: self.files.log(role, number),
            ready_within: if role == LOAD.role { SET_UP_WITHIN } else { READY_WITHIN },
            journal: site.journal.clone(),
        };
        let alive = match launched.launch(site.interrupt) {
            Ok(alive) => alive,
            // What was being started is gone; the caller sees the interruption.
            Err(_) if site.interrupt.is_asked() => return Ok(()),
            Err(error) => return Err(error),
        };
        let participant = Participant {
            role: role.to_owned(),
            replica: number,
            under_test,
            cpus: launched.cpus.as_deref().map(pinning::show),
            no_memory: alive.replica.no_memory().map(str::to_owned),
            no_cpu: None,
        };
        // A listener that stays would be in somebody's way: the journal says where to look for it.
        drop(Noted::new(site.journal, Intent::Address { addr: alive.replica.addr() })?);
        self.running.slots.push(Slot::new(participant, measures, Some(launched), alive));
        Ok(())
    }
}

/// The kinds of proxies that a link needs, from the caller on: one that passes bytes, one that understands HTTP.
fn kinds_of_proxies(planned: &[Planned], from: &str, role: &str, replica: u32) -> BTreeSet<bool> {
    let on_link = planned.iter().filter(|planned| {
        let caller = planned.from.as_deref();
        planned.role == role && planned.replica == replica && caller.is_none_or(|caller| caller == from)
    });
    let of_link = on_link.filter_map(|planned| match &planned.kind {
        FaultKind::Link(fault) => Some(fault.is_http()),
        _ => None,
    });
    of_link.collect()
}

/// The CPUs of a role: its own in the experiment, or its side's share.
fn cpus_of(site: &Site<'_>, role: &str, share: Option<&[usize]>) -> anyhow::Result<Option<Vec<usize>>> {
    match site.experiment.roles.get(role).and_then(|limits| limits.cpus.as_deref()) {
        Some(cpus) => units::parse_cpus(cpus).map(Some).map_err(crate::error::input),
        None => Ok(share.map(<[usize]>::to_vec)),
    }
}

/// Where the system of a trial is, when it runs elsewhere.
pub(super) fn external_url(experiment: &Experiment, trial: &Trial) -> Option<String> {
    let named =
        trial.levels.get("architecture").and_then(|architecture| experiment.external.get(&architecture.to_string()));
    named.or_else(|| experiment.external.get("default")).or_else(|| experiment.external.values().next()).cloned()
}
