//! What an experiment may set, for the source and the engine in one table.
//!
//! The one rule: a default is what the reference implementation does, and what costs nothing here (its overheads) is 0
//! unless asked for.

use std::time::Duration;

use kit::Stage;
use serde::{Deserialize, Serialize};

/// The `[settings]` of an experiment with this system; both roles are given the same. Durations are texts, as `"200ms"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How much stream one batch holds.
    #[serde(with = "text")]
    pub batch_interval: Duration,
    /// How much of it one block holds: a batch of a receiver has batch interval / block interval tasks in its first
    /// stage.
    #[serde(with = "text")]
    pub block_interval: Duration,
    /// Slots, those that receivers hold included.
    pub cores: u32,
    /// Receivers. Each is a client of the source with a stream of its own, and holds one slot.
    pub receivers: u32,
    /// Partitions that the records of a batch are spread over before they are mapped. 0: each block is one.
    pub partitions: u32,
    /// Partitions of the reduce. None: as many as `partitions`, or as `cores` where that is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reduce_partitions: Option<u32>,
    /// What mapping one record costs.
    #[serde(with = "text")]
    pub cost: Duration,
    /// What that record is.
    pub cost_per: Per,
    /// How the cost is spent.
    pub work: Work,
    /// Batches whose jobs may run at a time.
    pub concurrent_jobs: u32,
    /// Rows printed of each batch; one more is taken, to know whether there are more.
    pub print: u32,
    /// Whose overheads are added.
    pub like: Like,
    /// What the driver spends on each job before its first task starts. None: what `like` says.
    #[serde(with = "text::option", skip_serializing_if = "Option::is_none")]
    pub job_overhead: Option<Duration>,
    /// What the driver spends on each task of a stage before the first of them starts. None: what `like` says.
    #[serde(with = "text::option", skip_serializing_if = "Option::is_none")]
    pub task_overhead: Option<Duration>,
    /// Whether receivers are slowed down to what batches achieved.
    pub backpressure: bool,
    /// Weight of the error between the rate and what was achieved.
    pub pid_proportional: f64,
    /// Weight of the error that has piled up as scheduling delay.
    pub pid_integral: f64,
    /// Weight of the change of the error.
    pub pid_derived: f64,
    /// The lowest rate that back-pressure asks for, in records/s.
    pub pid_min_rate: f64,
    /// The highest rate of a receiver, in records/s. None: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rate: Option<f64>,
    /// The rate of a receiver until back-pressure asks for another, in records/s: the first batches show what can be done,
    /// and this is what they may be made of. Without back-pressure it is never changed. None: `max_rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_rate: Option<f64>,
    /// How long a receiver that lost its source waits before it connects again.
    #[serde(with = "text")]
    pub receiver_restart_delay: Duration,
    /// Bytes that may be received and not yet finished. Beyond them a receiver does not read; nothing is dropped.
    pub memory_bytes: u64,
    /// The longest line. A receiver that is sent a longer one restarts.
    pub max_line_bytes: u64,
    /// Counts are those of the last so many batches. 0: of each batch alone.
    pub window_batches: u32,
    /// Whether counts are those of the stream so far.
    pub state: bool,
    /// Bytes that a window, or counts of the stream so far, may hold between two batches. A batch after which it would be
    /// more fails, and leaves nothing. Apart from `memory_bytes`, because for that a receiver waits until a batch ends, and
    /// what is kept does not get less by waiting. The default is more than three million short words; our own source has
    /// at most a million different ones a stream.
    pub state_bytes: u64,
    /// How long what was received may take to be finished when the run ends. None: 10 batch intervals.
    #[serde(with = "text::option", skip_serializing_if = "Option::is_none")]
    pub graceful_stop_timeout: Option<Duration>,
    /// Where the lines come from, as `host:port`. None: from the system's own source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Words of a line that the source sends.
    pub words_per_line: u32,
    /// Different words: `word0`, `word1`, and so on.
    pub vocabulary: u32,
    /// How unequal they are: the exponent of Zipf's law. 0: all are equally likely.
    pub skew: f64,
    /// Lines/s over time, a stream. Filled from the load of the experiment.
    pub stages: Vec<Stage>,
    /// Whether lines arrive as a Poisson process. Off: evenly spaced.
    pub poisson: bool,
}

/// What a cost is counted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Per {
    /// By the line, before it is split.
    #[default]
    Line,
    /// By the word.
    Word,
}

/// How a cost is spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Waiting: it holds the slot and needs no CPU, so that a small host can honestly stand for many cores.
    #[default]
    Sleep,
    /// Computing: it needs a CPU for as long.
    Burn,
}

/// Whose overheads are added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Like {
    /// Nobody's: only our own, which is small.
    #[default]
    None,
    /// Spark's, fitted to two published settings: 0.384 s with 1 job of 15 tasks, 0.73 s with 2 jobs of 20 tasks.
    Spark,
}

impl Like {
    /// What a job costs.
    pub fn job_overhead(self) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::Spark => Duration::from_millis(327),
        }
    }

    /// What a task costs.
    pub fn task_overhead(self) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::Spark => Duration::from_micros(3_800),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch_interval: Duration::from_secs(1),
            block_interval: Duration::from_millis(200),
            cores: 4,
            receivers: 1,
            partitions: 4,
            reduce_partitions: None,
            cost: Duration::ZERO,
            cost_per: Per::Line,
            work: Work::Sleep,
            concurrent_jobs: 1,
            print: 5,
            like: Like::None,
            job_overhead: None,
            task_overhead: None,
            backpressure: false,
            pid_proportional: 1.0,
            pid_integral: 0.2,
            pid_derived: 0.0,
            pid_min_rate: 100.0,
            max_rate: None,
            initial_rate: None,
            receiver_restart_delay: Duration::from_secs(2),
            memory_bytes: 64 << 20,
            max_line_bytes: 1 << 20,
            window_batches: 0,
            state: false,
            state_bytes: 256 << 20,
            graceful_stop_timeout: None,
            source: None,
            words_per_line: 3,
            vocabulary: 50,
            skew: 0.0,
            stages: Vec::new(),
            poisson: false,
        }
    }
}

/// Why what is kept from batch to batch needs one job at a time.
pub(crate) const KEPT_IN_TURN: &str =
    "batches of a window, or of counts of the stream so far, must end in their order; set it to 1";

impl Settings {
    /// Slots left for tasks. 0 when receivers hold them all.
    pub fn slots(&self) -> u32 {
        self.cores.saturating_sub(self.receivers)
    }

    /// Receivers that have a slot and so can run.
    pub fn running_receivers(&self) -> u32 {
        self.receivers.min(self.cores)
    }

    /// The most cores whose slots so many CPUs can compute for, where these settings have more. A cost that waits needs no
    /// CPU, and neither does a receiver's core; a cost that computes does.
    pub fn cores_to_compute(&self, cpus: usize) -> Option<usize> {
        let burns = self.work == Work::Burn && !self.cost.is_zero();
        (burns && self.slots() as usize > cpus).then(|| cpus + self.receivers as usize)
    }

    /// Partitions of the reduce.
    pub fn reduce_partitions(&self) -> u32 {
        self.reduce_partitions.unwrap_or(if self.partitions == 0 { self.cores } else { self.partitions })
    }

    /// What the driver spends on each job.
    pub fn job_overhead(&self) -> Duration {
        self.job_overhead.unwrap_or_else(|| self.like.job_overhead())
    }

    /// What the driver spends on each task.
    pub fn task_overhead(&self) -> Duration {
        self.task_overhead.unwrap_or_else(|| self.like.task_overhead())
    }

    /// What mapping one line costs.
    pub fn cost_per_line(&self) -> Duration {
        match self.cost_per {
            Per::Line => self.cost,
            Per::Word => self.cost * self.words_per_line,
        }
    }

    /// How long a graceful stop may take.
    pub fn graceful_stop_timeout(&self) -> Duration {
        self.graceful_stop_timeout.unwrap_or(self.batch_interval * 10)
    }

    /// Lines/s of one stream, where that is one number: none when it changes, or when the source is a foreign one.
    pub fn planned_rate_per_s(&self) -> Option<f64> {
        let first = self.stages.first()?.from_per_s;
        let steady = self.stages.iter().all(|stage| stage.from_per_s == first && stage.to_per_s == first);
        (steady && self.source.is_none()).then_some(first)
    }

    /// What the reader of a run with these settings should know before it starts.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.slots() == 0 {
            let (cores, receivers) = (self.cores, self.receivers);
            notes.push(format!(
                "no slot is left for tasks: {cores} cores, and each of {receivers} receivers holds one, so batches queue \
                 for ever; set cores to {} or more",
                receivers.saturating_add(1)
            ));
        }
        if let (Some(rate), false) = (self.initial_rate, self.backpressure) {
            notes.push(format!(
                "initial_rate limits receivers to {rate} records/s for the whole run, because nothing asks for another \
                 rate; set backpressure to true, or leave it out"
            ));
        }
        notes
    }

    /// Whether a run can be made of these settings.
    ///
    /// # Errors
    /// The first key whose value makes no sense, and what it has and what is allowed.
    pub fn check(&self) -> Result<(), (String, String)> {
        self.faults().into_iter().find(|(_, fault, _)| *fault).map_or(Ok(()), |(key, _, allowed)| {
            let has = serde_json::to_value(self).map(|value| value[key].clone()).unwrap_or_default();
            Err((key.to_owned(), format!("{key} is {has}; {allowed}")))
        })
    }

    /// Each key that can be wrong by its value, whether it is, and what is allowed.
    fn faults(&self) -> Vec<(&'static str, bool, String)> {
        const MOST_SLOTS: u32 = 4_096;
        const MOST_PARTITIONS: u32 = 65_536;
        const MOST_WORDS: u32 = 10_000_000;
        let not_negative = |number: f64| number.is_finite() && number >= 0.0;
        let above_0 = |number: f64| number.is_finite() && number > 0.0;
        let shortest = Duration::from_millis(1);
        let interval = "it must be at least 1ms and at most 1d, as \"2s\"";
        let is_interval = |length: Duration| length >= shortest && length <= Duration::from_secs(86_400);
        let port_of = |place: &str| place.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        let source_ok = self.source.as_deref().is_none_or(|place| port_of(place).is_some_and(|port| port > 0));
        let stages_ok = self.stages.iter().all(|stage| not_negative(stage.from_per_s) && not_negative(stage.to_per_s));
        [
            ("batch_interval", !is_interval(self.batch_interval), interval.into()),
            ("block_interval", !is_interval(self.block_interval), interval.into()),
            ("cores", !(1..=MOST_SLOTS).contains(&self.cores), format!("it must be 1 to {MOST_SLOTS}")),
            ("receivers", !(1..=MOST_SLOTS).contains(&self.receivers), format!("it must be 1 to {MOST_SLOTS}")),
            (
                "partitions",
                self.partitions > MOST_PARTITIONS,
                format!("it must be 0 (each block is a partition) to {MOST_PARTITIONS}"),
            ),
            (
                "reduce_partitions",
                self.reduce_partitions.is_some_and(|count| !(1..=MOST_PARTITIONS).contains(&count)),
                format!("it must be 1 to {MOST_PARTITIONS}; leave it out to have as many as partitions"),
            ),
            ("concurrent_jobs", self.concurrent_jobs == 0, "it must be 1 or more".into()),
            (
                "concurrent_jobs",
                self.concurrent_jobs > 1 && (self.state || self.window_batches > 0),
                KEPT_IN_TURN.into(),
            ),
            ("print", self.print > 10_000, "it must be 0 to 10000".into()),
            ("pid_proportional", !not_negative(self.pid_proportional), "it must be 0 or more".into()),
            ("pid_integral", !not_negative(self.pid_integral), "it must be 0 or more".into()),
            ("pid_derived", !not_negative(self.pid_derived), "it must be 0 or more".into()),
            ("pid_min_rate", !above_0(self.pid_min_rate), "it must be above 0 records/s".into()),
            (
                "max_rate",
                self.max_rate.is_some_and(|rate| !above_0(rate)),
                "it must be above 0 records/s; leave it out to have no limit".into(),
            ),
            (
                "initial_rate",
                self.initial_rate.is_some_and(|rate| !above_0(rate)),
                "it must be above 0 records/s; leave it out to start at max_rate".into(),
            ),
            ("max_line_bytes", self.max_line_bytes == 0, "it must be 1 or more".into()),
            (
                "memory_bytes",
                self.memory_bytes < self.max_line_bytes,
                format!("it must hold one line of max_line_bytes, {} bytes", self.max_line_bytes),
            ),
            (
                "state",
                self.state && self.window_batches > 0,
                "counts are by window or of the stream so far; set window_batches to 0, or state to false".into(),
            ),
            ("source", !source_ok, "it must be host:port, as \"localhost:9999\"".into()),
            ("words_per_line", !(1..=10_000).contains(&self.words_per_line), "it must be 1 to 10000".into()),
            ("vocabulary", !(1..=MOST_WORDS).contains(&self.vocabulary), format!("it must be 1 to {MOST_WORDS}")),
            ("skew", !not_negative(self.skew), "it must be 0 (all words are equally likely) or more".into()),
            ("stages", !stages_ok, "rates must be 0 lines/s or more".into()),
        ]
        .into()
    }
}

/// Durations as texts: `250ms`, `1.5s`, `1m30s`.
mod text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&write(*duration))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        parse(&text).map_err(serde::de::Error::custom)
    }

    /// The same, where there may be none.
    pub mod option {
        use std::time::Duration;

        use serde::{Deserialize, Deserializer, Serializer};

        pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
            match duration {
                Some(duration) => super::serialize(duration, serializer),
                None => serializer.serialize_none(),
            }
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
            let text = Option::<String>::deserialize(deserializer)?;
            text.map(|text| super::parse(&text).map_err(serde::de::Error::custom)).transpose()
        }
    }

    const UNITS: [(&str, f64); 8] =
        [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3_600e9), ("d", 86_400e9)];

    pub fn parse(text: &str) -> Result<Duration, String> {
        let trimmed = text.trim();
        if trimmed.starts_with('-') {
            return Err(format!("{text:?} is negative; a duration is \"0s\" or more"));
        }
        let wrong = || format!("{text:?} is not a duration; write \"250ms\", \"10s\" or \"1m30s\"");
        let (mut rest, mut total_ns) = (trimmed, 0.0);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
            let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = &rest[digits..];
            let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let unit_ns = UNITS.iter().find(|(unit, _)| *unit == &rest[..end]).ok_or_else(wrong)?.1;
            total_ns += number * unit_ns;
            rest = &rest[end..];
        }
        // Whole nanoseconds, so that 0.1 s is exactly 100 ms.
        let fits = !trimmed.is_empty() && total_ns < 1e18;
        fits.then(|| Duration::from_nanos(total_ns.round() as u64)).ok_or_else(wrong)
    }

    pub fn write(duration: Duration) -> String {
        let ns = duration.as_nanos();
        let units = [("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)];
        match units.into_iter().find(|(_, unit_ns)| ns.is_multiple_of(*unit_ns)) {
            _ if ns == 0 => "0s".to_owned(),
            Some((unit, unit_ns)) => format!("{}{unit}", ns / unit_ns),
            None => format!("{ns}ns"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_set_is_the_default_and_survives_a_round_trip() {
        let settings = read("").unwrap();
        assert_eq!(settings, Settings::default());
        assert_eq!(read(&toml::to_string(&settings).unwrap()).unwrap(), settings);
        let json = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<Settings>(&json).unwrap(), settings);
        assert!(json.contains(r#""batch_interval":"1s""#) && json.contains(r#""memory_bytes":67108864"#), "{json}");
    }

    #[test]
    fn everything_set_survives_a_round_trip_too() {
        let settings = Settings {
            batch_interval: Duration::from_millis(2_500),
            reduce_partitions: Some(3),
            cost_per: Per::Word,
            work: Work::Burn,
            like: Like::Spark,
            job_overhead: Some(Duration::from_micros(1)),
            max_rate: Some(10.5),
            initial_rate: Some(2.5),
            graceful_stop_timeout: Some(Duration::from_secs(90)),
            source: Some("localhost:9999".into()),
            stages: vec![Stage { duration: Some(Duration::from_secs(1)), from_per_s: 1.0, to_per_s: 2.0 }],
            ..Settings::default()
        };
        let json = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<Settings>(&json).unwrap(), settings);
        assert_eq!(read(&toml::to_string(&settings).unwrap()).unwrap(), settings);
    }

    #[test]
    fn durations_are_texts() {
        for (text, ns) in [
            ("0s", 0),
            ("200ms", 200_000_000),
            ("1.5s", 1_500_000_000),
            ("1m30s", 90_000_000_000),
            ("2h", 7_200_000_000_000),
            ("3800us", 3_800_000),
        ] {
            assert_eq!(text::parse(text), Ok(Duration::from_nanos(ns)), "{text}");
            assert_eq!(text::parse(&text::write(Duration::from_nanos(ns))), Ok(Duration::from_nanos(ns)), "{text}");
        }
        for text in ["", "2", "s", "2 parsecs", "1e400s", "."] {
            assert!(text::parse(text).is_err(), "{text:?}");
        }
        assert!(read(r#"cost = "-4ms""#).unwrap_err().contains("is negative"));
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(read("speed = 1").unwrap_err().contains("unknown field `speed`"));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_key() {
        for (text, key) in [
            (r#"batch_interval = "0s""#, "batch_interval"),
            (r#"block_interval = "0s""#, "block_interval"),
            ("cores = 0", "cores"),
            ("receivers = 0", "receivers"),
            ("reduce_partitions = 0", "reduce_partitions"),
            ("concurrent_jobs = 0", "concurrent_jobs"),
            ("concurrent_jobs = 2\nstate = true", "concurrent_jobs"),
            ("concurrent_jobs = 2\nwindow_batches = 3", "concurrent_jobs"),
            ("pid_min_rate = 0.0", "pid_min_rate"),
            ("pid_derived = -1.0", "pid_derived"),
            ("max_rate = 0.0", "max_rate"),
            ("initial_rate = 0.0", "initial_rate"),
            ("memory_bytes = 10", "memory_bytes"),
            ("state = true\nwindow_batches = 3", "state"),
            (r#"source = "nowhere""#, "source"),
            (r#"source = "host:0""#, "source"),
            ("words_per_line = 0", "words_per_line"),
            ("vocabulary = 0", "vocabulary"),
            ("skew = -0.1", "skew"),
        ] {
            let (found, message) = read(text).unwrap().check().unwrap_err();
            assert_eq!(found, key, "{text}");
            assert!(message.starts_with(&format!("{key} is ")) && message.contains("; "), "{message}");
        }
        assert_eq!(Settings::default().check(), Ok(()));
        assert_eq!(read(r#"source = "[::1]:9999""#).unwrap().check(), Ok(()));
    }

    #[test]
    fn a_reduce_has_as_many_partitions_as_the_spread_or_as_cores() {
        let of = |text: &str| read(text).unwrap().reduce_partitions();
        assert_eq!(of("partitions = 8"), 8);
        assert_eq!(of("partitions = 0\ncores = 6"), 6);
        assert_eq!(of("partitions = 8\nreduce_partitions = 2"), 2);
    }

    #[test]
    fn a_given_overhead_beats_the_preset() {
        let settings = read("like = \"spark\"\njob_overhead = \"1ms\"").unwrap();
        assert_eq!(settings.job_overhead(), Duration::from_millis(1));
        assert_eq!(settings.task_overhead(), Duration::from_micros(3_800));
    }

    #[test]
    fn slots_that_compute_need_cpus_and_receivers_and_sleeps_do_not() {
        let of = |text: &str| read(text).unwrap().cores_to_compute(2);
        assert_eq!(of("cores = 4\nwork = \"burn\"\ncost = \"1ms\""), Some(3));
        assert_eq!(of("cores = 3\nwork = \"burn\"\ncost = \"1ms\""), None);
        assert_eq!(of("cores = 4\nreceivers = 2\nwork = \"burn\"\ncost = \"1ms\""), None);
        assert_eq!(of("cores = 4\nwork = \"burn\""), None);
        assert_eq!(of("cores = 4\ncost = \"1ms\""), None);
    }

    #[test]
    fn it_says_what_will_not_go_as_meant_and_the_way_out() {
        let notes = read("cores = 1").unwrap().notes();
        assert!(notes[0].contains("no slot is left") && notes[0].contains("set cores to 2"), "{notes:?}");
        assert!(read("cores = 2").unwrap().notes().is_empty());
        let notes = read("initial_rate = 10.0").unwrap().notes();
        assert!(notes[0].contains("10 records/s for the whole run"), "{notes:?}");
        assert!(read("initial_rate = 10.0\nbackpressure = true").unwrap().notes().is_empty());
    }
}
