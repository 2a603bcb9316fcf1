//! A fault in a file: one table with flat keys, read and written back the same.
//!
//! The keys of a kind stand beside those of the fault; of several kinds, each takes those that it has. Kinds whose keys
//! differ are written whole, as on the command line: `kind = ["latency=50ms", "latency=500ms"]`.

use std::time::Duration;

use toml::{Table, Value};

use super::Problem;
use crate::faults::{Fault, FaultKind, OWN_KINDS, Which};
use crate::proxy::{self, LinkFault};
use crate::units;

/// The keys that every fault has.
const KEYS: [&str; 8] = ["at", "kind", "role", "replica", "from", "downtime", "every", "times"];

/// How long until the repair, where the file does not say.
pub const DOWNTIME: Duration = Duration::from_secs(10);

/// Reads the fault with this number in the file.
pub(super) fn read(table: &Table, index: usize) -> Result<Fault, Problem> {
    let reader = Reader { table, index };
    let names = reader.kinds()?;
    reader.refuse_unknown(&names)?;
    let kinds = names.iter().map(|name| reader.kind(name)).collect::<Result<Vec<_>, _>>()?;
    let lasts = kinds.iter().any(FaultKind::has_downtime);
    let downtime = match (reader.parsed("downtime", units::parse_duration)?, lasts) {
        (Some(_), false) => return Err(reader.problem("downtime", "a restart has no downtime; use stop-start")),
        (given, true) => given.unwrap_or(DOWNTIME),
        (None, false) => Duration::ZERO,
    };
    let every = reader.parsed("every", units::parse_duration)?;
    let times = reader.parsed("times", |text| {
        text.parse().map_err(|_| format!("{text:?} is not how often; write a whole number, such as times = 3"))
    })?;
    if every.is_some() && times.is_none() {
        return Err(reader.problem("every", "every what, how often? write times = 3 beside it"));
    }
    Ok(Fault {
        at: reader.needed("at")?.parse().map_err(|message: String| reader.problem("at", message))?,
        kinds,
        role: reader.needed("role")?,
        replica: reader.parsed("replica", str::parse)?.unwrap_or(Which::One(1)),
        from: reader.text("from")?,
        downtime,
        every: every.unwrap_or_default(),
        times: times.unwrap_or(1),
    })
}

struct Reader<'a> {
    table: &'a Table,
    index: usize,
}

impl Reader<'_> {
    fn problem(&self, key: &str, message: impl Into<String>) -> Problem {
        Problem::new(format!("fault.{}.{key}", self.index), message)
    }

    /// The text of a key, or its number as text.
    fn text(&self, key: &str) -> Result<Option<String>, Problem> {
        self.table
            .get(key)
            .map(|value| as_text(value).map_err(|why| self.problem(key, format!("{key}: {why}"))))
            .transpose()
    }

    fn needed(&self, key: &str) -> Result<String, Problem> {
        self.text(key)?.ok_or_else(|| self.missing(key))
    }

    fn missing(&self, key: &str) -> Problem {
        let message = format!("a fault needs its {key}; write at = \"30s\", kind = \"kill\", role = \"ROLE\"");
        Problem::new(format!("fault.{}", self.index), message)
    }

    fn parsed<T>(&self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, Problem> {
        self.text(key)?.map(|text| parse(&text).map_err(|message| self.problem(key, message))).transpose()
    }

    /// The names of the kinds, all known.
    fn kinds(&self) -> Result<Vec<String>, Problem> {
        let wrong = |message: String| self.problem("kind", message);
        let names = match self.table.get("kind").ok_or_else(|| self.missing("kind"))? {
            Value::Array(values) => values.iter().map(as_text).collect::<Result<Vec<_>, _>>().map_err(wrong)?,
            value => vec![as_text(value).map_err(wrong)?],
        };
        if names.is_empty() {
            return Err(wrong("no kind; write one, such as kind = \"kill\"".to_owned()));
        }
        match names.iter().find(|name| !is_whole(name) && keys_of(name).is_none()) {
            Some(name) => Err(wrong(format!("unknown kind of fault {name:?}; there are {}", all_kinds().join(", ")))),
            None => Ok(names),
        }
    }

    fn refuse_unknown(&self, kinds: &[String]) -> Result<(), Problem> {
        let of_kinds: Vec<_> = kinds.iter().filter_map(|kind| keys_of(kind)).flatten().collect();
        let Some(key) =
            self.table.keys().find(|key| !KEYS.contains(&key.as_str()) && !of_kinds.contains(&key.as_str()))
        else {
            return Ok(());
        };
        let all =
            || all_kinds().into_iter().filter(|kind| keys_of(kind).is_some_and(|keys| keys.contains(&key.as_str())));
        let belongs: Vec<_> = all().collect();
        let kinds = kinds.join(", ");
        Err(self.problem(
            key,
            match (belongs.as_slice(), of_kinds.as_slice()) {
                ([], []) => format!("unknown key {key:?} of a fault; there are {}", KEYS.join(", ")),
                ([], of_kinds) => {
                    format!(
                        "unknown key {key:?} of a fault; there are {}, and of {kinds} {}",
                        KEYS.join(", "),
                        of_kinds.join(", ")
                    )
                }
                (belongs, []) => format!("{key} belongs to {}; {kinds} has no keys of its own", belongs.join(", ")),
                (belongs, of_kinds) => {
                    format!("{key} belongs to {}; {kinds} has {}", belongs.join(", "), of_kinds.join(", "))
                }
            },
        ))
    }

    fn kind(&self, name: &str) -> Result<FaultKind, Problem> {
        if is_whole(name) {
            return name.parse().map_err(|message: String| self.problem("kind", message));
        }
        let mut keys = Vec::new();
        for key in keys_of(name).unwrap_or_default() {
            keys.extend(self.text(key)?.map(|text| (key, text)));
        }
        let value = |key: &str| keys.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str());
        // A wrong value is told at its line where it is the only one.
        let wrong = |message: String| match keys.as_slice() {
            [(key, _)] => self.problem(key, message),
            _ => self.problem("kind", message),
        };
        let text = match name {
            "cpu-burn" => value("cpus").map_or_else(|| name.to_owned(), |cpus| format!("{name}={cpus}")),
            "memory-hog" => value("memory").map_or_else(|| name.to_owned(), |size| format!("{name}={size}")),
            _ if proxy::KINDS.iter().any(|kind| kind.name == name) => {
                let keys = keys.iter().map(|(key, value)| (*key, value.as_str()));
                return LinkFault::from_keys(name, keys).map(FaultKind::Link).map_err(wrong);
            }
            name => name.to_owned(),
        };
        text.parse().map_err(wrong)
    }
}

fn as_text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        other => Err(format!("{other} is neither a text nor a number")),
    }
}

fn all_kinds() -> Vec<&'static str> {
    OWN_KINDS.iter().map(|(name, _)| *name).chain(proxy::KINDS.iter().map(|kind| kind.name)).collect()
}

/// Whether a kind is written whole, with its values.
fn is_whole(kind: &str) -> bool {
    kind.contains('=')
}

/// The keys that a kind has beside those of every fault; none for a kind that is not known.
fn keys_of(kind: &str) -> Option<Vec<&'static str>> {
    match kind {
        "cpu-burn" => Some(vec!["cpus"]),
        "memory-hog" => Some(vec!["memory"]),
        _ if OWN_KINDS.iter().any(|(name, _)| *name == kind) => Some(Vec::new()),
        _ => proxy::KINDS.iter().find(|known| known.name == kind).map(|known| known.keys().collect()),
    }
}

/// The table that [`read`] reads back the same.
pub(super) fn table(fault: &Fault) -> Table {
    let mut table = keys(fault);
    if !read(&table, 0).is_ok_and(|again| again == *fault) {
        for key in fault.kinds.iter().flat_map(|kind| keys_of(kind.name()).unwrap_or_default()) {
            table.remove(key);
        }
        let whole = fault.kinds.iter().map(|kind| Value::String(kind.to_string()));
        table.insert("kind".to_owned(), Value::Array(whole.collect()));
    }
    table
}

/// The fault with the keys of its kinds beside it; of kinds that have one key in common the last one's.
fn keys(fault: &Fault) -> Table {
    let Fault { at, kinds, role, replica, from, downtime, every, times } = fault;
    let text = |text: &dyn ToString| Value::String(text.to_string());
    let mut table = Table::new();
    let mut put = |key: &str, value: Value| drop(table.insert(key.to_owned(), value));
    put("at", text(at));
    let names: Vec<_> = kinds.iter().map(|kind| text(&kind.name())).collect();
    put("kind", if let [only] = names.as_slice() { only.clone() } else { Value::Array(names) });
    put("role", text(role));
    put("replica", if let Which::One(number) = replica { Value::Integer((*number).into()) } else { text(replica) });
    from.iter().for_each(|from| put("from", text(from)));
    if kinds.iter().any(FaultKind::has_downtime) {
        put("downtime", text(&units::format_duration(*downtime)));
    }
    if *times != 1 || !every.is_zero() {
        put("every", text(&units::format_duration(*every)));
        put("times", Value::Integer((*times).into()));
    }
    for kind in kinds {
        let own = |key: &'static str, kind: &FaultKind| {
            let words = kind.to_string();
            Some((key, words.split_once('=')?.1.to_owned()))
        };
        let of_kind = match kind {
            FaultKind::Link(link) => link.to_keys(),
            FaultKind::CpuBurn { .. } => own("cpus", kind).into_iter().collect(),
            FaultKind::MemoryHog { .. } => own("memory", kind).into_iter().collect(),
            FaultKind::Restart | FaultKind::StopStart | FaultKind::Kill | FaultKind::Pause => Vec::new(),
        };
        of_kind.into_iter().for_each(|(key, value)| put(key, number_or_text(value)));
    }
    table
}

fn number_or_text(text: String) -> Value {
    text.parse().map_or(Value::String(text), Value::Integer)
}

#[cfg(test)]
mod tests {
    use super::super::file::parse;
    use super::*;

    const HEAD: &str = "# why?\nsystem = \"task-tracker\"\nduration = \"2m\"\n[factors]\nusers = [5]\n\
        architecture = [\"microservices\"]\n[roles.task-service]\nreplicas = 3\n";

    #[test]
    fn every_fault_is_read_back_as_it_is_archived() {
        for (keys, shown) in [
            ("kind = 'kill'", "kill of task-service 1 at 30s"),
            ("kind = 'restart'", "restart of task-service 1 at 30s"),
            (
                "kind = ['kill', 'pause', 'restart']\nreplica = 'random'",
                "kill or pause or restart of task-service random at 30s",
            ),
            ("kind = 'stop-start'\nreplica = 'all'\ndowntime = 3", "stop-start of task-service all at 30s"),
            (
                "kind = 'pause'\nevery = '20s'\ntimes = 3\nreplica = 2",
                "pause of task-service 2 at 30s, 3 times every 20s",
            ),
            (
                "kind = 'latency'\nlatency = '50ms'\njitter = '5ms'\nshare = 0.1\ndirection = 'both'\nfrom = 'gateway'",
                "latency=50ms,jitter=5ms,direction=both,share=10% of task-service 1 from gateway at 30s",
            ),
            ("kind = 'bandwidth'\nrate = '1MB/s'", "bandwidth=1MB of task-service 1 at 30s"),
            ("kind = 'blackhole'", "blackhole of task-service 1 at 30s"),
            ("kind = 'reset'", "reset of task-service 1 at 30s"),
            ("kind = 'reset'\nafter = '2s'", "reset=2s of task-service 1 at 30s"),
            ("kind = 'slow-close'\ndelay = '1s'", "slow-close=1s of task-service 1 at 30s"),
            ("kind = 'limit-data'\nbytes = 10000", "limit-data=10kB of task-service 1 at 30s"),
            ("kind = 'fail-first'\nconnections = 3", "fail-first=3 of task-service 1 at 30s"),
            ("kind = 'error-rate'\nshare = '10%'\nstatus = 503", "error-rate=10%,status=503 of task-service 1 at 30s"),
            ("kind = 'slow'\nlatency = '100ms'", "slow=100ms of task-service 1 at 30s"),
            (
                "kind = ['latency', 'slow', 'reset']\nlatency = '100ms'\nafter = '1s'",
                "latency=100ms or slow=100ms or reset=1s of task-service 1 at 30s",
            ),
            (
                "kind = ['latency=50ms', 'latency=500ms,share=10%', 'blackhole,direction=up', 'cpu-burn=2']",
                "latency=50ms or latency=500ms,share=10% or blackhole,direction=up or cpu-burn=2 of task-service 1 at 30s",
            ),
            ("kind = 'latency=50ms'", "latency=50ms of task-service 1 at 30s"),
            ("kind = 'cpu-burn'", "cpu-burn=1 of task-service 1 at 30s"),
            ("kind = 'cpu-burn'\ncpus = 0.5", "cpu-burn=0.5 of task-service 1 at 30s"),
            ("kind = 'memory-hog'\nmemory = '256MiB'", "memory-hog=256MiB of task-service 1 at 30s"),
            ("kind = 'memory-hog'\nmemory = 1000", "memory-hog=1000 of task-service 1 at 30s"),
        ] {
            let text = format!("{HEAD}[[fault]]\nat = '30s'\nrole = 'task-service'\n{keys}\n");
            let experiment = parse(&text, "x", "x").unwrap_or_else(|error| panic!("{keys}: {error}"));
            assert_eq!(experiment.faults[0].to_string(), shown);
            let archived = experiment.to_toml();
            let again = parse(&archived, "x", "x").unwrap_or_else(|error| panic!("{archived}: {error}"));
            assert_eq!(again, experiment, "{archived}");
        }
    }

    #[test]
    fn several_faults_a_drawn_time_and_a_reason_to_abort_are_read_back_too() {
        let text = format!(
            "{}abort_when = 'errors > 50% for 30s'\n{}[[fault]]\nat = '20s..30s'\nkind = 'kill'\nrole = 'gateway'\n\
             [[fault]]\nat = 50\nkind = 'pause'\nrole = 'user-service'\ndowntime = '1500ms'\n",
            &HEAD[..7],
            &HEAD[7..]
        );
        let experiment = parse(&text, "x", "x").unwrap();
        assert_eq!(experiment.faults[0].downtime, DOWNTIME);
        assert_eq!(experiment.faults[1].downtime, Duration::from_millis(1500));
        assert_eq!(experiment.abort_when.as_ref().unwrap().to_string(), "errors > 50% for 30s");
        assert_eq!(parse(&experiment.to_toml(), "x", "x").unwrap(), experiment);
    }

    #[test]
    fn a_wrong_fault_is_refused_at_its_line() {
        for (keys, line, expected) in [
            ("at = '30s'\nkind = 'kill'\nrole = 'gateway'\nreplics = 2", 13, "unknown key \"replics\""),
            ("at = '30s'\nkind = 'kill'\nrole = 'gateway'\nlatency = '1s'", 13, "latency belongs to latency, slow"),
            (
                "at = '30s'\nkind = 'reset'\nrole = 'gateway'\nrate = 1",
                13,
                "rate belongs to bandwidth; reset has after",
            ),
            ("at = '30s'\nkind = 'explode'\nrole = 'gateway'", 11, "there are restart, stop-start, kill"),
            ("at = '30s'\nkind = 'kill=9'\nrole = 'gateway'", 11, "kill takes no value"),
            (
                "at = '30s'\nkind = 'latency=1s'\nlatency = '1s'\nrole = 'gateway'",
                12,
                "latency belongs to latency, slow",
            ),
            ("at = '30s'\nkind = []\nrole = 'gateway'", 11, "no kind"),
            ("at = '30s'\nkind = [true]\nrole = 'gateway'", 11, "neither a text nor a number"),
            ("at = '30s'\nkind = 'kill'", 9, "needs its role"),
            ("at = '30s'\nrole = 'gateway'", 9, "needs its kind"),
            ("kind = 'kill'\nrole = 'gateway'", 9, "needs its at"),
            ("at = 'soon'\nkind = 'kill'\nrole = 'gateway'", 10, "not a duration"),
            ("at = '60s..30s'\nkind = 'kill'\nrole = 'gateway'", 10, "ends before it begins"),
            ("at = '30s'\nkind = 'kill'\nrole = 'gateway'\nreplica = 0", 13, "from 1"),
            ("at = '30s'\nkind = 'kill'\nrole = 'gateway'\nreplica = 'every'", 13, "random, or all"),
            ("at = '30s'\nkind = 'kill'\nrole = 'gateway'\ntimes = -1\nevery = '5s'", 13, "whole number"),
            ("at = '30s'\nkind = 'kill'\nrole = 'gateway'\nevery = '20s'", 13, "write times = 3"),
            ("at = '30s'\nkind = 'restart'\nrole = 'gateway'\ndowntime = '1s'", 13, "use stop-start"),
            ("at = '30s'\nkind = 'latency'\nrole = 'gateway'", 11, "latency needs its latency"),
            ("at = '30s'\nkind = 'latency'\nrole = 'gateway'\nlatency = 'long'", 13, "not a duration"),
            ("at = '30s'\nkind = 'memory-hog'\nrole = 'gateway'", 11, "needs its memory"),
            ("at = '30s'\nkind = 'cpu-burn'\nrole = 'gateway'\ncpus = 0", 13, "no number of CPUs"),
        ] {
            let error = parse(&format!("{HEAD}[[fault]]\n{keys}\n"), "x.toml", "x").unwrap_err().to_string();
            assert!(error.starts_with(&format!("x.toml:{line}: ")), "{keys}: {error}");
            assert!(error.contains(expected), "{keys}: {error}");
        }
    }
}
