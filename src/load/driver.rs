//! Sends on time: one thread, one runtime, its share of the users, no state shared with other threads.
//!
//! The one rule: an operation is announced to the recorder as soon as its intended time is decided, and its wait
//! counts from then, however late the system or this thread is. A closed loop has one user a connection, who waits for
//! the answer and thinks; an open loop has a schedule, which waits for nobody: operations that find no free connection
//! queue, and the queue is part of their time.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use anyhow::Context as _;
use kit::recorder::Begun;
use kit::{Clock, Op, Outcome, Recorder, Shard};
use rand::RngExt as _;
use tokio::sync::{Semaphore, mpsc, watch};

use super::client::{Client, Ending, Exchange, Place, Shared};
use super::pacer::{Pacer, Sleeper, Stopped};
use super::scenario::{Action, Compiled, Judged, User};
use super::schedule::Schedule;
use super::track::{Noted, Notes};
use crate::experiment::LoadPlan;

/// What all threads of a generator share, and do not change.
pub struct Job {
    /// What users do.
    pub scenario: Compiled,
    /// Where its requests go.
    pub places: Arc<Vec<Place>>,
    /// How load is offered, all replicas together.
    pub plan: LoadPlan,
    /// How long a request may take.
    pub timeout: Duration,
    /// Whether connections are used again.
    pub keep_alive: bool,
    /// Where random decisions start.
    pub seed: u64,
    /// When to end by itself, counted from the start.
    pub duration: Option<Duration>,
    /// How many requests of a closed loop are left for this replica.
    pub left: Option<AtomicI64>,
    /// How many arrivals an open loop has, all replicas together.
    pub arrivals: Option<u64>,
    /// How many threads there are, all replicas together.
    pub lanes: usize,
    /// The time.
    pub clock: Clock,
    /// Where operations go.
    pub recorder: Recorder,
    /// The run's name.
    pub run: String,
    /// Where each operation is told, where that was asked for.
    pub history: Option<kit::Journal>,
}

/// What a thread tells while it runs.
#[derive(Default)]
pub struct Gauges {
    /// Users at work.
    pub users: AtomicU64,
    /// Operations sent and not ended.
    pub in_flight: AtomicU64,
    /// Open connections.
    pub connections: AtomicU64,
    /// Operations due and not sent.
    pub backlog: AtomicU64,
}

/// What the generator tells its threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Set up, then wait.
    SetUp,
    /// Start, at this instant.
    Start(u64),
    /// Begin nothing more.
    Stop,
}

/// What a thread tells its generator.
#[derive(Debug)]
pub enum Event {
    /// Its users are set up.
    Ready,
    /// It cannot go on.
    Failed(anyhow::Error),
    /// Everything it had begun has ended and is recorded.
    Drained,
}

/// Why an operation of an open loop was not sent when the load ended.
pub const NOT_SENT: &str = "not sent before the end";
/// How many users a thread sets up at a time.
const SETUP_AT_A_TIME: usize = 16;
/// How long a user waits after a connection that was refused, so that a dead target is not hammered.
const AFTER_REFUSAL_NS: u64 = 10_000_000;
/// What an answer is read to; longer ones take several turns.
const READ_BUFFER: usize = 64 * 1024;
/// After how many tasks the runtime asks the kernel for news. Its own choice, 61, is late for a schedule.
const TASKS_BETWEEN_POLLS: u32 = 31;

/// Runs one lane to its end, on a runtime of its own. Returns early when `signal` is dropped.
///
/// # Errors
/// When its users cannot be set up, or the kernel lacks something.
pub fn run_lane(
    job: Arc<Job>,
    lane: usize,
    gauges: Arc<Gauges>,
    mut signal: watch::Receiver<Signal>,
    events: &mpsc::UnboundedSender<Event>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .event_interval(TASKS_BETWEEN_POLLS)
        .build_local(tokio::runtime::LocalOptions::default())
        .context("starting a runtime for load")?;
    runtime.block_on(async {
        let lane = Lane::new(job, lane, gauges)?;
        tokio::select! {
            result = lane.clone().go(signal.clone(), events) => result,
            // The generator has gone.
            () = gone(&mut signal) => Ok(()),
        }
    })
}

async fn gone(signal: &mut watch::Receiver<Signal>) {
    while signal.changed().await.is_ok() {}
}

/// One thread's share of the load.
struct Lane {
    job: Arc<Job>,
    /// Its place among all threads of all replicas.
    index: usize,
    pacer: Rc<Pacer>,
    shared: Rc<Shared>,
    shard: Shard,
    gauges: Arc<Gauges>,
    users: Cell<u64>,
    in_flight: Cell<u64>,
    open: RefCell<OpenLoop>,
    notes: Notes,
}

/// Who is free, and what waits.
#[derive(Default)]
struct OpenLoop {
    free: VecDeque<Rc<Desk>>,
    backlog: VecDeque<Due>,
    /// No more arrivals will come.
    over: bool,
}

/// Where a worker of an open loop is handed its next operation.
struct Desk {
    sleeper: Rc<Sleeper>,
    due: Cell<Option<Due>>,
}

/// An operation that is due.
#[derive(Clone, Copy)]
struct Due {
    begun: Begun,
    /// When the pacer let it go; none when it found a free connection, whose first move that is.
    released_ns: Option<u64>,
}

/// One user: what it knows, its connections and its place to sleep.
struct Actor {
    user: User,
    client: Client,
    sleeper: Rc<Sleeper>,
    request: Vec<u8>,
    scratch: Vec<u8>,
}

impl Lane {
    fn new(job: Arc<Job>, index: usize, gauges: Arc<Gauges>) -> anyhow::Result<Rc<Self>> {
        let shared = Shared {
            places: job.places.clone(),
            clock: job.clock.clone(),
            timeout: job.timeout,
            keep_alive: job.keep_alive,
            buffer: RefCell::new(vec![0; READ_BUFFER].into()),
            connections: Cell::new(0),
        };
        Ok(Rc::new(Self {
            pacer: Pacer::new(job.clock.clone()).context("the kernel gives no timer (timerfd)")?,
            shard: job.recorder.shard(&job.scenario.kinds),
            shared: Rc::new(shared),
            index,
            gauges,
            users: Cell::new(0),
            in_flight: Cell::new(0),
            open: RefCell::default(),
            notes: Notes::new(job.history.clone()),
            job,
        }))
    }

    async fn go(
        self: Rc<Self>,
        mut signal: watch::Receiver<Signal>,
        events: &mpsc::UnboundedSender<Event>,
    ) -> anyhow::Result<()> {
        let pacer = self.pacer.clone();
        tokio::task::spawn_local(async move { pacer.run().await });
        tokio::task::spawn_local(self.clone().keep_house());
        let actors = self.clone().set_up().await?;
        let _ = events.send(Event::Ready);

        let started = signal.wait_for(|signal| *signal != Signal::SetUp).await.map(|signal| *signal);
        if let Ok(Signal::Start(origin_ns)) = started {
            self.notes.begin(origin_ns);
            let lane = self.clone();
            tokio::task::spawn_local(async move {
                if signal.wait_for(|signal| *signal == Signal::Stop).await.is_ok() {
                    lane.stop();
                }
            });
            self.clone().load(actors, origin_ns).await;
        }
        self.publish();
        self.notes.tell();
        let _ = events.send(Event::Drained);
        Ok(())
    }

    /// Looks at deadlines, and tells the gauges.
    async fn keep_house(self: Rc<Self>) {
        let every = (self.job.timeout / 50).clamp(Duration::from_millis(1), Duration::from_millis(50));
        let sleeper = Sleeper::new();
        loop {
            self.pacer.doze_until(self.pacer.now_ns() + every.as_nanos() as u64, &sleeper).await;
            self.pacer.sweep();
            self.publish();
            self.notes.tell();
        }
    }

    fn publish(&self) {
        self.gauges.users.store(self.users.get(), Relaxed);
        self.gauges.in_flight.store(self.in_flight.get(), Relaxed);
        self.gauges.connections.store(self.shared.connections.get(), Relaxed);
        self.gauges.backlog.store(self.open.borrow().backlog.len() as u64, Relaxed);
    }

    /// The numbers of this lane's users.
    fn numbers(&self) -> impl Iterator<Item = u64> + use<> {
        let all = match &self.job.plan {
            LoadPlan::Closed { users, .. } => u64::from(*users),
            LoadPlan::Open { connections, .. } => u64::from((*connections).max(1)).max(self.job.lanes as u64),
        };
        (self.index as u64..all).step_by(self.job.lanes)
    }

    /// Makes this lane's users, and does their setup, several at a time.
    async fn set_up(self: Rc<Self>) -> anyhow::Result<Vec<Actor>> {
        let at_a_time = Arc::new(Semaphore::new(SETUP_AT_A_TIME));
        let mut tasks = tokio::task::JoinSet::new();
        let mut actors = Vec::new();
        for number in self.numbers() {
            let mut actor = self.actor(number);
            if self.job.scenario.setup.is_empty() {
                actors.push(actor);
                continue;
            }
            let (lane, at_a_time) = (self.clone(), at_a_time.clone());
            tasks.spawn_local(async move {
                let _permit = at_a_time.acquire().await;
                lane.set_up_one(&mut actor).await.map(|()| actor)
            });
        }
        while let Some(actor) = tasks.join_next().await {
            actors.push(actor.context("setting up a user")??);
        }
        actors.sort_by_key(|actor| actor.user.number);
        Ok(actors)
    }

    fn actor(&self, number: u64) -> Actor {
        let sleeper = Sleeper::new();
        self.pacer.watch(&sleeper);
        Actor {
            user: self.job.scenario.user(number),
            client: Client::new(self.shared.clone(), sleeper.clone(), number as usize),
            sleeper,
            request: Vec::new(),
            scratch: Vec::new(),
        }
    }

    async fn set_up_one(&self, actor: &mut Actor) -> anyhow::Result<()> {
        for action in &self.job.scenario.setup {
            for _ in 0..action.repeat {
                anyhow::ensure!(
                    actor.user.has_all_for(action),
                    "setup step {:?} of user {} needs a value that no step before it extracts",
                    action.name,
                    actor.user.number
                );
                let exchange = actor.exchange(&self.job.scenario, action).await;
                let (outcome, error) = actor.outcome(action, &exchange);
                self.note(actor, action, None, &exchange, outcome);
                if let Some(error) = actor.setup_error(error) {
                    anyhow::bail!("setup step {:?} of user {}: {error}", action.name, actor.user.number);
                }
            }
        }
        Ok(())
    }

    /// Offers the load, until the schedule ends or it is stopped, and all that was begun has ended.
    async fn load(self: Rc<Self>, actors: Vec<Actor>, origin_ns: u64) {
        let end_ns = self.job.duration.map_or(u64::MAX, |duration| origin_ns + duration.as_nanos() as u64);
        let mut tasks = tokio::task::JoinSet::new();
        match &self.job.plan {
            LoadPlan::Closed { think, spawn_rate, .. } => {
                for actor in actors {
                    let start_ns = origin_ns + after_spawn_ns(actor.user.number, *spawn_rate);
                    let turn = Turn { lane: self.clone(), think: *think, end_ns };
                    tasks.spawn_local(tokio::task::unconstrained(turn.closed(actor, start_ns)));
                }
            }
            LoadPlan::Open { stages, poisson, .. } => {
                let schedule = Schedule::new(stages, *poisson, self.job.seed);
                let lane = self.index;
                let lanes = self.job.lanes;
                let count = self
                    .job
                    .arrivals
                    .map_or(usize::MAX, |arrivals| (arrivals as usize).saturating_sub(lane).div_ceil(lanes));
                let times = schedule.lane(lane, lanes).take(count).map(move |at_ns| origin_ns + at_ns);
                for actor in actors {
                    let desk = Rc::new(Desk { sleeper: actor.sleeper.clone(), due: Cell::new(None) });
                    tasks.spawn_local(tokio::task::unconstrained(self.clone().serve(actor, desk)));
                }
                if end_ns < u64::MAX {
                    tokio::task::spawn_local(self.clone().stop_at(end_ns));
                }
                let lane = self.clone();
                let times = times.take_while(move |at_ns| *at_ns < end_ns);
                tasks.spawn_local(tokio::task::unconstrained(lane.release(times)));
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Ends an open loop: a backlog must not make it longer.
    async fn stop_at(self: Rc<Self>, end_ns: u64) {
        if self.pacer.sleep_until(end_ns, &Sleeper::new()).await.is_ok() {
            self.stop();
        }
    }

    /// Lets operations of an open loop go at their times.
    async fn release(self: Rc<Self>, mut times: impl Iterator<Item = u64>) {
        let sleeper = Sleeper::new();
        let mut next = times.next().map(|at_ns| self.shard.begin(at_ns));
        while let Some(begun) = next {
            if self.pacer.sleep_until(begun.intended_ns, &sleeper).await == Err(Stopped) {
                return self.shard.withdraw(begun);
            }
            // Announced before the one before it can end, so that no second closes too early.
            next = times.next().map(|at_ns| self.shard.begin(at_ns));
            self.hand_out(begun);
        }
        self.no_more_arrivals();
    }

    fn hand_out(&self, begun: Begun) {
        let mut open = self.open.borrow_mut();
        match open.free.pop_front() {
            Some(desk) => {
                desk.due.set(Some(Due { begun, released_ns: None }));
                desk.sleeper.wake();
            }
            None => open.backlog.push_back(Due { begun, released_ns: Some(self.pacer.now_ns()) }),
        }
    }

    fn no_more_arrivals(&self) {
        let mut open = self.open.borrow_mut();
        open.over = true;
        for desk in open.free.drain(..) {
            desk.sleeper.wake();
        }
    }

    /// Begins nothing more. What was due and never sent is recorded as refused, since leaving it out would flatter.
    fn stop(&self) {
        self.pacer.stop();
        self.no_more_arrivals();
        let backlog = std::mem::take(&mut self.open.borrow_mut().backlog);
        let now_ns = self.pacer.now_ns();
        for due in backlog {
            let instants = [due.released_ns.unwrap_or(now_ns), now_ns, now_ns];
            self.record(due.begun, instants, 0, 0, 0, (Outcome::Failed, Some(NOT_SENT.to_owned())));
        }
    }

    /// One connection of an open loop: does what is due, and waits for more.
    async fn serve(self: Rc<Self>, mut actor: Actor, desk: Rc<Desk>) {
        self.users.set(self.users.get() + 1);
        while let Some(due) = self.next_due(&desk).await {
            let released_ns = due.released_ns.unwrap_or_else(|| self.pacer.now_ns());
            self.operate(&mut actor, due.begun, released_ns).await;
        }
        self.users.set(self.users.get() - 1);
    }

    async fn next_due(&self, desk: &Rc<Desk>) -> Option<Due> {
        {
            let mut open = self.open.borrow_mut();
            if let Some(due) = open.backlog.pop_front() {
                return Some(due);
            }
            if open.over {
                return None;
            }
            open.free.push_back(desk.clone());
        }
        poll_fn(|context| {
            desk.sleeper.register(context);
            match desk.due.take() {
                Some(due) => Poll::Ready(Some(due)),
                None if self.open.borrow().over => Poll::Ready(None),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Does one operation and records it; says when it ended, whether a connection was refused, and what it was.
    async fn operate(&self, actor: &mut Actor, begun: Begun, released_ns: u64) -> Done<'_> {
        let scenario = &self.job.scenario;
        let Some(action) = scenario.draw(&mut actor.user) else {
            let now_ns = self.pacer.now_ns();
            let why = "no step can be drawn: each needs a value that is not there".to_owned();
            self.record(begun, [released_ns, now_ns, now_ns], 0, 0, 0, (Outcome::Failed, Some(why)));
            return Done { finished_ns: now_ns, refused: true, action: None };
        };
        self.in_flight.set(self.in_flight.get() + 1);
        let exchange = actor.exchange(scenario, action).await;
        self.in_flight.set(self.in_flight.get() - 1);
        let refused = matches!(exchange.ending, Ending::NotSent(_));
        let bytes = if refused { 0 } else { actor.client.answer.bytes };
        let status = actor.status(&exchange);
        let ended = actor.outcome(action, &exchange);
        self.note(actor, action, Some(begun.intended_ns), &exchange, ended.0);
        let Exchange { started_ns, finished_ns, .. } = exchange;
        self.record(begun, [released_ns, started_ns, finished_ns], action.kind, status, bytes, ended);
        Done { finished_ns, refused, action: Some(action) }
    }

    fn note(
        &self,
        actor: &mut Actor,
        action: &Action,
        intended_ns: Option<u64>,
        exchange: &Exchange,
        outcome: Outcome,
    ) {
        let status = actor.status(exchange);
        self.notes.add(action, &mut actor.user, &self.job.run, Noted { intended_ns, exchange, outcome, status });
    }

    fn record(
        &self,
        begun: Begun,
        [released_ns, started_ns, finished_ns]: [u64; 3],
        kind: usize,
        status: u16,
        bytes: u64,
        (outcome, error): (Outcome, Option<String>),
    ) {
        let intended_ns = begun.intended_ns;
        let op = Op { intended_ns, released_ns, started_ns, finished_ns, outcome, status, units: 1, bytes };
        self.shard.end(begun, kind, &op, error.as_deref());
    }
}

struct Done<'a> {
    finished_ns: u64,
    refused: bool,
    action: Option<&'a Action>,
}

/// The turns of one user of a closed loop.
struct Turn {
    lane: Rc<Lane>,
    think: Duration,
    end_ns: u64,
}

impl Turn {
    async fn closed(self, mut actor: Actor, start_ns: u64) {
        let lane = self.lane.clone();
        let (mut intended_ns, mut now_ns) = (start_ns, 0);
        let mut started = false;
        while intended_ns < self.end_ns {
            let begun = lane.shard.begin(intended_ns);
            let released_ns = self.release(&actor, intended_ns, now_ns).await;
            let Some(released_ns) = released_ns.filter(|_| self.may_begin()) else {
                lane.shard.withdraw(begun);
                break;
            };
            if !std::mem::replace(&mut started, true) {
                lane.users.set(lane.users.get() + 1);
            }
            let done = lane.operate(&mut actor, begun, released_ns).await;
            now_ns = done.finished_ns;
            intended_ns = now_ns + self.pause_ns(&mut actor.user, &done);
        }
        if started {
            lane.users.set(lane.users.get() - 1);
        }
    }

    /// Waits until an operation is due; says when it was let go, or nothing when no more may begin. One that is due at
    /// the end of the one before it is let go then: there is nothing to wait for, and no need to ask for the time.
    async fn release(&self, actor: &Actor, intended_ns: u64, now_ns: u64) -> Option<u64> {
        let pacer = &self.lane.pacer;
        if intended_ns == now_ns {
            // Everything that has arrived is read before anything more is sent: answers get their true time, and the
            // target its requests in one go. Measured: a tenth fewer sleeps, 3 % more requests.
            tokio::task::yield_now().await;
            return (!pacer.is_stopped()).then_some(now_ns);
        }
        pacer.sleep_until(intended_ns, &actor.sleeper).await.ok().map(|()| pacer.now_ns())
    }

    fn may_begin(&self) -> bool {
        self.lane.job.left.as_ref().is_none_or(|left| left.fetch_sub(1, Relaxed) > 0)
    }

    fn pause_ns(&self, user: &mut User, done: &Done<'_>) -> u64 {
        let mean = done.action.and_then(|action| action.think).unwrap_or(self.think);
        let think_ns = match mean.is_zero() {
            true => 0,
            false => (mean.as_nanos() as f64 * user.rng.random_range(0.5..1.5)) as u64,
        };
        if done.refused { think_ns.max(AFTER_REFUSAL_NS) } else { think_ns }
    }
}

impl Actor {
    async fn exchange(&mut self, scenario: &Compiled, action: &Action) -> Exchange {
        scenario.request(action, &mut self.user, &mut self.scratch, &mut self.request);
        self.client.exchange(action, &self.request).await
    }

    /// What an operation was, and why it did not end well.
    fn outcome(&mut self, action: &Action, exchange: &Exchange) -> (Outcome, Option<String>) {
        match &exchange.ending {
            Ending::Answered => {
                let answer = &self.client.answer;
                match action.judge(&mut self.user, answer.status, &answer.headers, &answer.body) {
                    Judged::Right => (Outcome::Ok, None),
                    Judged::Wrong(why) => (Outcome::Wrong, Some(why)),
                    Judged::Refused => {
                        // A refusal of the second try says nothing of the first, which was sent too.
                        let outcome = match refusal(answer.status, action.safe) {
                            Outcome::Failed if exchange.earlier_ns.is_some() && !action.safe => Outcome::Unknown,
                            outcome => outcome,
                        };
                        (outcome, Some(format!("HTTP {}", answer.status)))
                    }
                }
            }
            Ending::NotSent(error) | Ending::Lost(error) | Ending::Nonsense(error) => {
                (exchange.ending.outcome(), Some(error.clone()))
            }
        }
    }

    /// The status of the answer; 0 where there was none.
    fn status(&self, exchange: &Exchange) -> u16 {
        if exchange.ending == Ending::Answered { self.client.answer.status } else { 0 }
    }

    fn setup_error(&self, error: Option<String>) -> Option<String> {
        let error = error?;
        let body = String::from_utf8_lossy(&self.client.answer.body);
        let excerpt: String = body.chars().take(200).collect();
        Some(if excerpt.is_empty() { error } else { format!("{error}: {excerpt}") })
    }
}

/// The outcome of an answer with a status that is not allowed. A server that broke down over a request that changes
/// something may have done it before, and one that says it did something else has done something.
fn refusal(status: u16, safe: bool) -> Outcome {
    match status {
        503 | 400..500 => Outcome::Failed,
        _ if safe => Outcome::Failed,
        _ => Outcome::Unknown,
    }
}

/// When a user starts, after the first.
fn after_spawn_ns(number: u64, spawn_rate: f64) -> u64 {
    if spawn_rate > 0.0 { (number as f64 / spawn_rate * 1e9) as u64 } else { 0 }
}
