//! What users do, made ready to be done fast: templates cut into parts, checks into a tree of what to look at.
//!
//! The one rule: everything that can be wrong with a scenario is found by [`Compiled::new`], before a connection is
//! opened, and named with the step it is in. While load runs, a request is a copy of prepared bytes with the few
//! changing values between them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;

use super::probe::{Found, Probe};
use super::track::Tracked;
use super::{Check, Extract, Scenario, Step};

/// The most values a collected list keeps, so that memory does not grow with time; a further one takes the place of
/// one drawn at random.
const LONGEST_LIST: usize = 100;

/// Where requests go.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    /// Whether it speaks TLS.
    pub https: bool,
    /// The value of the header `host`.
    pub authority: String,
    /// Its replicas as `host:port`; connections take turns.
    pub replicas: Vec<String>,
}

/// A scenario, checked and prepared.
#[derive(Debug)]
pub struct Compiled {
    /// The kinds of operation, by index.
    pub kinds: Vec<String>,
    /// Done once a user before measuring.
    pub setup: Vec<Action>,
    /// Drawn while measuring.
    pub actions: Vec<Action>,
    /// Where requests go: the target first, then those of steps that name another.
    pub origins: Vec<Origin>,
    in_turn: bool,
    total_weight: u32,
    /// Whether an action may be impossible for want of a value.
    conditional: bool,
    values: usize,
    lists: usize,
    run: String,
    seed: u64,
}

/// A step, prepared.
#[derive(Debug)]
pub struct Action {
    /// Index of its kind.
    pub kind: usize,
    /// The name of its kind.
    pub name: String,
    /// Index of its origin.
    pub origin: usize,
    /// Whether nothing changes on the server (GET, HEAD, OPTIONS): then it cannot have happened in vain.
    pub safe: bool,
    /// Whether it may be sent again on a lost connection.
    pub idempotent: bool,
    /// Whether its answer has no body.
    pub head_only: bool,
    /// How often it is done, in setup.
    pub repeat: u32,
    /// The mean think time after it, where it has its own.
    pub think: Option<Duration>,
    /// Names of the headers it extracts, in lower case.
    pub headers: Vec<String>,
    weight: u32,
    /// The whole request, where nothing in it changes.
    fixed: Option<Arc<[u8]>>,
    head: Template,
    /// None for a request without a body and without a content length.
    body: Option<Template>,
    needs: Vec<Need>,
    check: Checker,
    /// What is kept of it for a history, where one is asked for.
    pub(super) track: Option<Tracked>,
}

/// What a user must know, by its slot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Need {
    Value(usize),
    List(usize),
}

/// A text with what changes in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    User,
    Run,
    N,
    Op,
    Uuid,
    Random(u64, u64),
    Value(usize),
    Pick(usize),
    Take(usize),
}

/// What one user knows. Never shared between users.
#[derive(Debug)]
pub struct User {
    /// Its number, unique in the run.
    pub number: u64,
    /// Where its decisions come from.
    pub rng: kit::Rng,
    /// Requests so far.
    n: u64,
    values: Vec<Option<Box<str>>>,
    lists: Vec<Vec<Box<str>>>,
    /// What is noted in `arg` when a request uses it.
    noted: Option<Need>,
    /// The last value of that in the last request.
    pub(super) arg: Option<Box<str>>,
    /// What the last answer said of what is kept for a history.
    pub(super) got: BTreeMap<String, String>,
}

/// What an answer turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// As it should be.
    Right,
    /// A status that is not allowed.
    Refused,
    /// An allowed status, and a body that is not what it should be; and why.
    Wrong(String),
}

impl Compiled {
    /// Prepares a scenario for a target.
    ///
    /// # Errors
    /// What is wrong, and in which step.
    pub fn new(scenario: &Scenario, target: Origin, options: &Options<'_>) -> anyhow::Result<Self> {
        anyhow::ensure!(!scenario.steps.is_empty(), "the scenario has no step; add a [[step]] with a path");
        let mut build = Build { origins: vec![target], names: Names::of(scenario), kinds: Vec::new(), options };
        let setup = build.actions(&scenario.setup, false)?;
        let actions = build.actions(&scenario.steps, true)?;
        let total_weight = actions.iter().map(|action| action.weight).sum();
        anyhow::ensure!(total_weight > 0, "every step of the scenario has weight 0; none can be drawn");
        Ok(Self {
            conditional: actions.iter().any(|action| !action.needs.is_empty()),
            total_weight,
            in_turn: scenario.in_turn,
            kinds: build.kinds,
            values: build.names.values.len(),
            lists: build.names.lists.len(),
            origins: build.origins,
            run: options.run.to_owned(),
            seed: options.seed,
            setup,
            actions,
        })
    }

    /// A user at its beginning.
    pub fn user(&self, number: u64) -> User {
        User {
            number,
            rng: kit::rng(self.seed, &format!("load/user/{number}")),
            n: 0,
            values: vec![None; self.values],
            lists: vec![Vec::new(); self.lists],
            noted: None,
            arg: None,
            got: BTreeMap::new(),
        }
    }

    /// What the user does next; none when every step lacks a value that it needs.
    pub fn draw(&self, user: &mut User) -> Option<&Action> {
        if self.actions.len() == 1 && !self.conditional {
            return self.actions.first();
        }
        if self.in_turn {
            // Users begin at different places, so that the first requests are not all for the same.
            let at = (user.n + user.number) as usize % self.actions.len();
            return (0..self.actions.len())
                .map(|ahead| &self.actions[(at + ahead) % self.actions.len()])
                .find(|action| user.can(action));
        }
        let total = match self.conditional {
            false => self.total_weight,
            true => self.actions.iter().filter(|action| user.can(action)).map(|action| action.weight).sum(),
        };
        if total == 0 {
            return None;
        }
        let mut left = user.rng.random_range(0..total);
        self.actions.iter().filter(|action| user.can(action)).find(|action| {
            let found = left < action.weight;
            left = left.saturating_sub(action.weight);
            found
        })
    }

    /// Writes the request to the buffer, and counts it as the user's next.
    pub fn request(&self, action: &Action, user: &mut User, scratch: &mut Vec<u8>, request: &mut Vec<u8>) {
        user.n += 1;
        user.noted = action.track.as_ref().and_then(|track| track.arg);
        user.arg = None;
        request.clear();
        if let Some(fixed) = &action.fixed {
            request.extend_from_slice(fixed);
            return;
        }
        action.head.render(user, &self.run, request);
        if let Some(body) = &action.body {
            scratch.clear();
            body.render(user, &self.run, scratch);
            request.extend_from_slice(b"content-length: ");
            request.extend_from_slice(itoa::Buffer::new().format(scratch.len()).as_bytes());
            request.extend_from_slice(b"\r\n\r\n");
            request.extend_from_slice(scratch);
        } else {
            request.extend_from_slice(b"\r\n");
        }
    }
}

/// What a scenario is prepared for.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The run's name.
    pub run: &'a str,
    /// Where random decisions start.
    pub seed: u64,
    /// Whether connections are used again.
    pub keep_alive: bool,
    /// Whether a history is kept.
    pub history: bool,
}

impl User {
    /// The name of its last request, unique in the run.
    pub(super) fn op(&self) -> String {
        format!("{}-{}", self.number, self.n)
    }

    fn can(&self, action: &Action) -> bool {
        self.lacks(action).is_none()
    }

    fn lacks(&self, action: &Action) -> Option<Need> {
        action.needs.iter().copied().find(|need| match need {
            Need::Value(value) => self.values[*value].is_none(),
            Need::List(list) => self.lists[*list].is_empty(),
        })
    }

    /// Whether the user has every value that the action needs.
    pub fn has_all_for(&self, action: &Action) -> bool {
        self.can(action)
    }

    fn keep(&mut self, into: Into, value: String) {
        match into {
            Into::Value(slot) => self.values[slot] = Some(value.into()),
            Into::List(list) => {
                let list = &mut self.lists[list];
                if list.len() < LONGEST_LIST {
                    list.push(value.into());
                } else {
                    let at = self.rng.random_range(0..list.len());
                    list[at] = value.into();
                }
            }
        }
    }
}

impl Action {
    /// Whether the body of an answer is looked at.
    pub fn wants_body(&self) -> bool {
        !self.check.probe.is_empty()
    }

    /// Judges an answer, and keeps what is extracted from one that is right.
    pub fn judge(&self, user: &mut User, status: u16, headers: &[Option<String>], body: &[u8]) -> Judged {
        if !self.check.allows(status) {
            return Judged::Refused;
        }
        if self.check.probe.is_empty() && self.check.extracts.is_empty() {
            return Judged::Right;
        }
        match self.check.look(user, headers, body, self.track.as_ref()) {
            Ok(()) => Judged::Right,
            Err(why) => Judged::Wrong(why),
        }
    }
}

/// What an answer must be, and what is kept of it.
#[derive(Debug, Default)]
struct Checker {
    status: Vec<u16>,
    /// Everything in the body that is looked at.
    probe: Probe,
    expected: Vec<Expected>,
    extracts: Vec<Extracted>,
}

#[derive(Debug)]
struct Expected {
    pointer: String,
    slot: usize,
    what: What,
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    Any,
    Type(&'static str, bool),
    Value(serde_json::Value),
}

#[derive(Debug)]
struct Extracted {
    name: String,
    from: From,
    into: Into,
}

#[derive(Clone, Copy, Debug)]
enum From {
    Body(usize),
    Header(usize),
}

#[derive(Clone, Copy, Debug)]
enum Into {
    Value(usize),
    List(usize),
}

const TYPES: [&str; 7] = ["string", "number", "integer", "boolean", "array", "object", "null"];

impl What {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(value) = text.strip_prefix('=') {
            return Ok(Self::Value(serde_json::from_str(value).unwrap_or_else(|_| value.into())));
        }
        let (name, nullable) = text.strip_suffix('?').map_or((text, false), |name| (name, true));
        if name == "any" {
            return Ok(Self::Any);
        }
        match TYPES.iter().find(|known| **known == name) {
            Some(known) => Ok(Self::Type(known, nullable)),
            None => Err(format!("unknown type {text:?}; there is any, {}, or =value", TYPES.join(", "))),
        }
    }

    /// Why a value is not this, in a few stable words.
    fn refuses(&self, found: &Found) -> Option<String> {
        match self {
            Self::Any => None,
            Self::Type(_, true) if *found == Found::Null => None,
            Self::Type(name, _) => (!found.is(name)).then(|| format!("not {} {name}", article(name))),
            Self::Value(value) => (!found.equals(value)).then(|| format!("not {value}")),
        }
    }
}

fn article(name: &str) -> &'static str {
    if name.starts_with(['a', 'i', 'o']) { "an" } else { "a" }
}

impl Checker {
    fn new(step: &Step, names: &Names, headers: &mut Vec<String>) -> Result<Self, String> {
        let Check { status, json } = &step.check;
        let mut checker = Self { status: status.clone(), ..Self::default() };
        for (pointer, what) in json {
            let slot = checker.probe.add(pointer)?;
            let what = What::parse(what).map_err(|error| format!("check {pointer}: {error}"))?;
            checker.expected.push(Expected { pointer: pointer.clone(), slot, what });
        }
        for (name, Extract { json, header, collect }) in &step.extract {
            if ["user", "run", "n", "op", "uuid"].contains(&name.as_str()) {
                return Err(format!("extract {name}: {{{{{name}}}}} already has a meaning; choose another name"));
            }
            let from = match (json, header) {
                (Some(pointer), None) => From::Body(checker.probe.add(pointer)?),
                (None, Some(header)) => {
                    headers.push(header.to_ascii_lowercase());
                    From::Header(headers.len() - 1)
                }
                _ => return Err(format!("extract {name}: give either json or header")),
            };
            let into = if *collect { Into::List(names.lists[name]) } else { Into::Value(names.values[name]) };
            checker.extracts.push(Extracted { name: name.clone(), from, into });
        }
        Ok(checker)
    }

    fn allows(&self, status: u16) -> bool {
        match self.status.as_slice() {
            [] => (200..400).contains(&status),
            allowed => allowed.contains(&status),
        }
    }

    fn look(
        &self,
        user: &mut User,
        headers: &[Option<String>],
        body: &[u8],
        track: Option<&Tracked>,
    ) -> Result<(), String> {
        let mut found =
            if self.probe.is_empty() { Vec::new() } else { self.probe.look(body).map_err(|_| "check: not JSON")? };
        for Expected { pointer, slot, what } in &self.expected {
            let reason = match &found[*slot] {
                Some(value) => what.refuses(value),
                None => Some("not there".to_owned()),
            };
            if let Some(reason) = reason {
                return Err(format!("check {pointer}: {reason}"));
            }
        }
        if let Some(track) = track {
            track.keep(&found, user);
        }
        for Extracted { name, from, into } in &self.extracts {
            let value = match from {
                From::Body(slot) => found[*slot].take().and_then(Found::into_text),
                From::Header(slot) => headers.get(*slot).cloned().flatten(),
            };
            user.keep(*into, value.ok_or_else(|| format!("extract {name}: not there"))?);
        }
        Ok(())
    }
}

impl Template {
    pub(super) fn parse(text: &str, names: &Names) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (inside, after) = after.split_once("}}").ok_or_else(|| format!("{{{{ without }}}} in {text:?}"))?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::parse(inside.trim(), names)?);
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    fn text(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Part::Text(last)) => last.push_str(text),
            _ => self.0.push(Part::Text(text.to_owned())),
        }
    }

    fn append(&mut self, other: Self) {
        for part in other.0 {
            match part {
                Part::Text(text) => self.text(&text),
                part => self.0.push(part),
            }
        }
    }

    fn is_fixed(&self) -> bool {
        self.0.iter().all(|part| matches!(part, Part::Text(_)))
    }

    /// Whether it gives the same text whenever it is asked for within one request.
    pub(super) fn is_same_again(&self) -> bool {
        self.0.iter().all(|part| matches!(part, Part::Text(_) | Part::User | Part::Run | Part::N | Part::Op))
    }

    fn needs(&self) -> impl Iterator<Item = Need> {
        self.0.iter().filter_map(|part| match part {
            Part::Value(slot) => Some(Need::Value(*slot)),
            Part::Pick(list) | Part::Take(list) => Some(Need::List(*list)),
            _ => None,
        })
    }

    pub(super) fn render(&self, user: &mut User, run: &str, out: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::User => out.extend_from_slice(digits.format(user.number).as_bytes()),
                Part::Run => out.extend_from_slice(run.as_bytes()),
                Part::N => out.extend_from_slice(digits.format(user.n).as_bytes()),
                Part::Op => out.extend_from_slice(user.op().as_bytes()),
                Part::Uuid => out.extend_from_slice(uuid(user.rng.random()).as_bytes()),
                Part::Random(low, high) => {
                    let value = user.rng.random_range(*low..=*high);
                    out.extend_from_slice(digits.format(value).as_bytes());
                }
                Part::Value(slot) => {
                    out.extend_from_slice(user.values[*slot].as_deref().unwrap_or_default().as_bytes());
                    if user.noted == Some(Need::Value(*slot)) {
                        user.arg.clone_from(&user.values[*slot]);
                    }
                }
                Part::Pick(list) if !user.lists[*list].is_empty() => {
                    let at = user.rng.random_range(0..user.lists[*list].len());
                    out.extend_from_slice(user.lists[*list][at].as_bytes());
                    if user.noted == Some(Need::List(*list)) {
                        user.arg = Some(user.lists[*list][at].clone());
                    }
                }
                Part::Take(list) if !user.lists[*list].is_empty() => {
                    let at = user.rng.random_range(0..user.lists[*list].len());
                    let taken = user.lists[*list].swap_remove(at);
                    out.extend_from_slice(taken.as_bytes());
                    if user.noted == Some(Need::List(*list)) {
                        user.arg = Some(taken);
                    }
                }
                // Emptied by another placeholder of the same request.
                Part::Pick(_) | Part::Take(_) => {}
            }
        }
    }
}

impl Part {
    fn parse(inside: &str, names: &Names) -> Result<Self, String> {
        let list = |name: &str| {
            names.lists.get(name).copied().ok_or_else(|| format!("no step collects {name:?}; add extract with collect"))
        };
        match inside.split_once(':') {
            Some(("random", range)) => {
                let (low, high) = range.split_once('-').ok_or_else(|| format!("random:{range} is not like 1-100"))?;
                let number = |text: &str| text.trim().parse().map_err(|_| format!("random:{range} is not like 1-100"));
                let (low, high) = (number(low)?, number(high)?);
                if low > high { Err(format!("random:{range} is empty")) } else { Ok(Self::Random(low, high)) }
            }
            Some(("pick", name)) => Ok(Self::Pick(list(name.trim())?)),
            Some(("take", name)) => Ok(Self::Take(list(name.trim())?)),
            Some((what, _)) => Err(format!("unknown placeholder {what:?}; there is random, pick, take")),
            None => match inside {
                "user" => Ok(Self::User),
                "run" => Ok(Self::Run),
                "n" => Ok(Self::N),
                "op" => Ok(Self::Op),
                "uuid" => Ok(Self::Uuid),
                name => names.values.get(name).map(|slot| Self::Value(*slot)).ok_or_else(|| {
                    format!("{name:?} is neither user, run, n, op or uuid nor extracted by any step of the scenario")
                }),
            },
        }
    }
}

/// A version 4 UUID of random bits.
fn uuid(bits: u128) -> String {
    let bits = bits & !(0xf << 76) & !(0b11 << 62) | 4 << 76 | 0b10 << 62;
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Extracted names and where a user keeps them.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) values: BTreeMap<String, usize>,
    pub(super) lists: BTreeMap<String, usize>,
}

impl Names {
    fn of(scenario: &Scenario) -> Self {
        let mut names = Self::default();
        for step in scenario.setup.iter().chain(&scenario.steps) {
            for (name, extract) in &step.extract {
                let slots = if extract.collect { &mut names.lists } else { &mut names.values };
                let next = slots.len();
                slots.entry(name.clone()).or_insert(next);
            }
        }
        names
    }
}

struct Build<'a> {
    origins: Vec<Origin>,
    names: Names,
    kinds: Vec<String>,
    options: &'a Options<'a>,
}

impl Build<'_> {
    fn actions(&mut self, steps: &[Step], measured: bool) -> anyhow::Result<Vec<Action>> {
        steps
            .iter()
            .map(|step| {
                let name = step.name.clone().unwrap_or_else(|| format!("{} {}", step.method, step.path));
                self.action(step, &name, measured).map_err(|error| anyhow::anyhow!("step {name:?}: {error}"))
            })
            .collect()
    }

    fn action(&mut self, step: &Step, name: &str, measured: bool) -> Result<Action, String> {
        let method = step.method.to_ascii_uppercase();
        if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-') {
            return Err(format!("{:?} is not a method", step.method));
        }
        let (origin, path) = self.split(&step.path)?;
        let head = self.head(step, &method, origin, path)?;
        let has_length = step.body.is_some() || matches!(method.as_str(), "POST" | "PUT" | "PATCH");
        let body = match has_length {
            true => Some(Template::parse(step.body.as_deref().unwrap_or_default(), &self.names)?),
            false => None,
        };
        let mut headers = Vec::new();
        let mut check = Checker::new(step, &self.names, &mut headers)?;
        let needs: Vec<Need> = head.needs().chain(body.iter().flat_map(Template::needs)).collect();
        // Refused when it is wrong, even where nobody asked for a history.
        let mut unasked = Probe::default();
        let probe = if self.options.history { &mut check.probe } else { &mut unasked };
        let track =
            step.track.as_ref().map(|track| Tracked::new(track, &self.names, |need| needs.contains(&need), probe));
        let track = track.transpose()?.filter(|_| self.options.history);
        let mut action = Action {
            kind: if measured { self.kind(name) } else { 0 },
            name: name.to_owned(),
            origin,
            safe: matches!(method.as_str(), "GET" | "HEAD" | "OPTIONS" | "TRACE"),
            idempotent: matches!(method.as_str(), "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"),
            head_only: method == "HEAD",
            repeat: step.repeat,
            think: step.think,
            headers,
            weight: step.weight,
            fixed: None,
            head,
            body,
            needs,
            check,
            track,
        };
        action.fixed = self.fixed(&action);
        Ok(action)
    }

    fn kind(&mut self, name: &str) -> usize {
        self.kinds.iter().position(|kind| kind == name).unwrap_or_else(|| {
            self.kinds.push(name.to_owned());
            self.kinds.len() - 1
        })
    }

    /// The origin and the path of a step, which is a path of the target or a whole URL.
    fn split<'p>(&mut self, path: &'p str) -> Result<(usize, &'p str), String> {
        if path.starts_with('/') {
            return Ok((0, path));
        }
        if !path.starts_with("http://") && !path.starts_with("https://") {
            return Err(format!("path {path:?} must begin with / or be a whole URL"));
        }
        let (origin, path) = Origin::parse(path)?;
        if let Some(at) =
            self.origins.iter().position(|known| known.https == origin.https && known.authority == origin.authority)
        {
            return Ok((at, path));
        }
        self.origins.push(origin);
        Ok((self.origins.len() - 1, path))
    }

    fn head(&self, step: &Step, method: &str, origin: usize, path: &str) -> Result<Template, String> {
        let given = |name: &str| step.headers.keys().any(|key| key.eq_ignore_ascii_case(name));
        let mut head = Template::default();
        head.text(&format!("{method} "));
        head.append(Template::parse(path, &self.names)?);
        head.text(" HTTP/1.1\r\n");
        let mut defaults = vec![
            ("host", self.origins[origin].authority.as_str()),
            ("user-agent", concat!("scalelab/", env!("CARGO_PKG_VERSION"))),
            ("accept", "*/*"),
        ];
        if step.body.as_deref().is_some_and(|body| body.trim_start().starts_with(['{', '['])) {
            defaults.push(("content-type", "application/json"));
        }
        if !self.options.keep_alive {
            defaults.push(("connection", "close"));
        }
        for (name, value) in defaults.into_iter().filter(|(name, _)| !given(name)) {
            head.text(&format!("{name}: {value}\r\n"));
        }
        for (name, value) in &step.headers {
            if http::HeaderName::from_bytes(name.as_bytes()).is_err() || value.contains(['\r', '\n']) {
                return Err(format!("{name:?}: {value:?} is not a header"));
            }
            if name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(format!("header {name:?} is set from the body; leave it out"));
            }
            head.text(&format!("{name}: "));
            head.append(Template::parse(value, &self.names)?);
            head.text("\r\n");
        }
        Ok(head)
    }

    fn fixed(&self, action: &Action) -> Option<Arc<[u8]>> {
        let text = |template: &Template| {
            template.is_fixed().then(|| {
                template.0.iter().fold(String::new(), |mut text, part| {
                    if let Part::Text(part) = part {
                        text.push_str(part);
                    }
                    text
                })
            })
        };
        let mut request = text(&action.head)?;
        if let Some(body) = &action.body {
            let body = text(body)?;
            let _ = write!(request, "content-length: {}\r\n\r\n{body}", body.len());
        } else {
            request.push_str("\r\n");
        }
        Some(request.into_bytes().into())
    }
}

impl Origin {
    /// Splits a URL into its origin and its path, which begins with `/`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(url: &str) -> Result<(Self, &str), String> {
        let wrong = |why: &str| format!("{url:?} is not a URL: {why}; write http://host:port/path");
        let (https, rest) = match url.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some((scheme, _)) => return Err(wrong(&format!("unknown scheme {scheme:?}"))),
            None => return Err(wrong("it has no scheme")),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err(wrong("user names are not supported; give a header authorization"));
        }
        let parsed: http::uri::Authority = authority.parse().map_err(|_| wrong("the host"))?;
        let host = parsed.host();
        let port = match authority.strip_prefix(host).unwrap_or_default().strip_prefix(':') {
            None => Some(if https { 443 } else { 80 }),
            Some(port) => port.parse::<u16>().ok().filter(|port| *port > 0),
        };
        let port = port.filter(|_| !host.is_empty()).ok_or_else(|| wrong("the host or port"))?;
        let origin = Self { https, authority: authority.to_owned(), replicas: vec![format!("{host}:{port}")] };
        let path = path.split('#').next().unwrap_or_default();
        match path {
            "" => Ok((origin, "/")),
            path if path.starts_with('/') => Ok((origin, path)),
            _ => Err(wrong("a query needs a path before it")),
        }
    }

    /// A plain target with these replicas.
    pub fn plain(replicas: &[String]) -> Self {
        let authority = replicas.first().cloned().unwrap_or_default();
        Self { https: false, authority, replicas: replicas.to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_split_into_origin_and_path() {
        for (url, expect) in [
            ("http://h", Some((false, "h:80", "/"))),
            ("https://h/a?b#c", Some((true, "h:443", "/a?b"))),
            ("http://h:8080/", Some((false, "h:8080", "/"))),
            ("http://[::1]:81/x", Some((false, "[::1]:81", "/x"))),
            ("http://[::1]/x", Some((false, "[::1]:80", "/x"))),
            ("http://h:x/", None),
            ("http://h:0/", None),
            ("http://:80/", None),
            ("http://h?x", None),
            ("h/x", None),
        ] {
            let split = Origin::parse(url).ok().map(|(origin, path)| (origin.https, origin.replicas[0].clone(), path));
            assert_eq!(split, expect.map(|(https, replica, path)| (https, replica.to_owned(), path)), "{url}");
        }
    }

    #[test]
    fn a_template_is_filled_from_what_the_user_knows() {
        let names =
            Names { values: BTreeMap::from([("token".to_owned(), 0)]), lists: BTreeMap::from([("ids".to_owned(), 0)]) };
        let mut user = User {
            number: 7,
            rng: kit::rng(1, "test"),
            n: 3,
            values: vec![Some("T".into())],
            lists: vec![vec!["only".into()]],
            noted: None,
            arg: None,
            got: BTreeMap::new(),
        };
        let mut render = |text: &str| {
            let mut out = Vec::new();
            Template::parse(text, &names).unwrap().render(&mut user, "run1", &mut out);
            String::from_utf8(out).unwrap()
        };
        for (text, expect) in [
            ("", ""),
            ("plain", "plain"),
            ("{{user}}/{{ run }}/{{n}}", "7/run1/3"),
            ("{{op}}", "7-3"),
            ("{{token}}{{token}}", "TT"),
            ("{{random:5-5}}", "5"),
            ("{{pick:ids}}", "only"),
            ("{{take:ids}}-{{take:ids}}", "only-"),
        ] {
            assert_eq!(render(text), expect, "{text}");
        }
        let uuid = render("{{uuid}}");
        assert!(uuid.len() == 36 && uuid.as_bytes()[14] == b'4' && b"89ab".contains(&uuid.as_bytes()[19]), "{uuid}");
    }

    #[test]
    fn a_collected_list_does_not_grow_for_ever() {
        let scenario: Scenario = serde_json::from_value(serde_json::json!({
            "steps": [{ "path": "/", "extract": { "ids": { "json": "/id", "collect": true } } }],
        }))
        .unwrap();
        let options = Options { run: "r", seed: 1, keep_alive: true, history: false };
        let compiled = Compiled::new(&scenario, Origin::plain(&["h:1".to_owned()]), &options).unwrap();
        let mut user = compiled.user(0);
        for id in 0..3 * LONGEST_LIST {
            let body = format!("{{\"id\": {id}}}");
            assert_eq!(compiled.actions[0].judge(&mut user, 200, &[], body.as_bytes()), Judged::Right);
        }
        assert_eq!(user.lists[0].len(), LONGEST_LIST);
    }
}
