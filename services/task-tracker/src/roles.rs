//! The roles, put together from their parts.
//!
//! The one rule: a role says that it is ready only when it can do its work, and says why when it cannot start.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use kit::role::BoxFuture;
use kit::{Env, Role};

use crate::gateway::levels::{self, Levels};
use crate::gateway::upstream::Upstream;
use crate::gateway::{Gateway, ROUTES};
use crate::metrics::{HttpMetrics, UpstreamMetrics};
use crate::operations::{OPERATIONS, Part};
use crate::passwords::Passwords;
use crate::service::{CostOfTasks, Service};
use crate::settings::{GatewaySettings, RetrySettings, Settings};
use crate::shedding::InFlight;
use crate::stats::Counts;
use crate::store::{Migrations, Store};
use crate::tokens::Tokens;
use crate::{cors, datetime, gauges, openapi, tasks, users};

/// Every role of this system.
pub const ROLES: &[Role] = &[
    Role { name: "monolith", about: "the whole application in one process", run: |env| Box::pin(monolith(env)) },
    Role { name: "gateway", about: "one address for the services", run: |env| Box::pin(gateway(env)) },
    Role { name: "user-service", about: "users and tokens", run: |env| Box::pin(user_service(env)) },
    Role { name: "task-service", about: "tasks", run: |env| Box::pin(task_service(env)) },
    Role { name: "stats-service", about: "statistics over tasks", run: |env| Box::pin(stats_service(env)) },
];

/// How long an idempotency key is remembered at least.
const KEYS_KEPT: Duration = Duration::from_secs(24 * 3600);

async fn monolith(env: Env) -> anyhow::Result<()> {
    let settings: Settings = env.config.settings()?;
    let store = Store::open(&env, &[&users::MIGRATIONS, &tasks::MIGRATIONS], settings.database_connections).await?;
    forget_old_keys(&env, &store).await?;
    serve_service(env, &settings, &[Part::Users, Part::Tasks, Part::Stats], Some(store), Counts::Store).await
}

async fn user_service(env: Env) -> anyhow::Result<()> {
    let settings: Settings = env.config.settings()?;
    let store = open(&env, &users::MIGRATIONS, &settings).await?;
    serve_service(env, &settings, &[Part::Users], Some(store), Counts::None).await
}

async fn task_service(env: Env) -> anyhow::Result<()> {
    let settings: Settings = env.config.settings()?;
    let store = open(&env, &tasks::MIGRATIONS, &settings).await?;
    forget_old_keys(&env, &store).await?;
    serve_service(env, &settings, &[Part::Tasks], Some(store), Counts::None).await
}

async fn stats_service(env: Env) -> anyhow::Result<()> {
    let settings: Settings = env.config.settings()?;
    // Retries belong to one layer, and the gateway is it.
    let upstream =
        GatewaySettings { retries: RetrySettings { on: false, ..Default::default() }, ..settings.gateway.clone() };
    let metrics = UpstreamMetrics::register(&env);
    let upstream = Upstream::new(&env, "task-service", &upstream, &metrics, &Levels::new(&env))?;
    upstream.watch_readiness(&env.shutdown);
    serve_service(env, &settings, &[Part::Stats], None, Counts::TaskService(upstream)).await
}

async fn gateway(env: Env) -> anyhow::Result<()> {
    let settings: Settings = env.config.settings()?;
    let (metrics, levels) = (UpstreamMetrics::register(&env), Levels::new(&env));
    let upstreams: anyhow::Result<Vec<_>> =
        ROUTES.iter().map(|(_, name)| Upstream::new(&env, name, &settings.gateway, &metrics, &levels)).collect();
    let upstreams = upstreams?;
    for upstream in &upstreams {
        upstream.watch_readiness(&env.shutdown);
    }
    let operations: Vec<_> = OPERATIONS.iter().collect();
    let gateway = Arc::new(Gateway {
        in_flight: InFlight::new(settings.gateway.max_in_flight),
        settings: settings.gateway.clone(),
        upstreams,
        metrics: HttpMetrics::register(&env),
        document: Bytes::from(openapi::document(&operations, true)),
    });
    gauges::tell(&env, {
        let (gateway, metrics, levels) = (gateway.clone(), metrics, levels);
        move || gateway_gauges(&gateway, &metrics, &levels)
    });
    let checked = gateway.clone();
    env.status.check_with(Arc::new(move || {
        let checked = checked.clone();
        Box::pin(async move { checked.readiness() })
    }));
    serve(env, &settings, gateway.router()).await
}

/// `requests` are those of clients, shed ones too: tries for each of them is what a client's request costs upstreams.
fn gateway_gauges(gateway: &Gateway, upstreams: &UpstreamMetrics, levels: &Levels) -> [(&'static str, f64); 8] {
    let (shed, now) = (gateway.metrics.shed.get(), levels.now());
    [
        ("requests", (upstreams.requests.get() + shed) as f64),
        ("tries", upstreams.tries.get() as f64),
        ("retries", upstreams.retries.get() as f64),
        ("over_budget", upstreams.over_budget.get() as f64),
        ("shed", shed as f64),
        ("in_flight", gateway.in_flight.count() as f64),
        (levels::BREAKER_OPEN, now.breaker_open as f64),
        (levels::NOT_READY, now.not_ready as f64),
    ]
}

fn service_gauges(service: &Service) -> [(&'static str, f64); 3] {
    let metrics = &service.metrics;
    [
        ("shed", metrics.shed.get() as f64),
        ("expired", metrics.expired.get() as f64),
        ("in_flight", service.in_flight.count() as f64),
    ]
}

async fn open(env: &Env, migrations: &'static Migrations, settings: &Settings) -> anyhow::Result<Store> {
    Store::open(env, &[migrations], settings.database_connections).await
}

/// Keys are forgotten when a role starts: a table that only grows within a run is what a lab wants to see.
async fn forget_old_keys(env: &Env, store: &Store) -> anyhow::Result<()> {
    let before_ns = env.clock.wall_ns().saturating_sub(KEYS_KEPT.as_nanos() as u64);
    Ok(tasks::forget_keys_before(store, &datetime::from_wall_ns(before_ns)).await?)
}

async fn serve_service(
    env: Env,
    settings: &Settings,
    parts: &[Part],
    store: Option<Store>,
    counts: Counts,
) -> anyhow::Result<()> {
    let has = |part: Part| part == Part::Every || parts.contains(&part);
    let operations: Vec<_> = OPERATIONS.iter().filter(|operation| has(operation.part)).collect();
    let service = Arc::new(Service {
        document: Bytes::from(openapi::document(&operations, false)),
        operations,
        store: store.clone(),
        counts,
        tokens: Tokens::new(
            env.config.secret("jwt_key")?,
            env.clock.clone(),
            settings.token_minutes.map_or(Settings::TOKEN_MINUTES, NonZeroU32::get),
        ),
        passwords: Passwords::new(settings.argon2)?,
        clock: env.clock.clone(),
        in_flight: InFlight::new(settings.max_in_flight.unwrap_or(Settings::MAX_IN_FLIGHT)),
        drop_expired: settings.drop_expired.unwrap_or(true),
        cost: settings.cost.map(CostOfTasks::new),
        metrics: HttpMetrics::register(&env),
    });
    gauges::tell(&env, {
        let service = service.clone();
        move || service_gauges(&service)
    });
    let checked = service.clone();
    env.status.check_with(Arc::new(move || -> BoxFuture<Result<(), String>> {
        let checked = checked.clone();
        Box::pin(async move { checked.readiness().await })
    }));
    let served = serve(env, settings, service.router()).await;
    if let Some(store) = store {
        store.close().await;
    }
    served
}

async fn serve(mut env: Env, settings: &Settings, router: Router) -> anyhow::Result<()> {
    let router = router.layer(cors::layer(settings.cors_origins.as_deref())?);
    let listener = env.listener();
    env.ready();
    kit::http::serve(listener, router, env.shutdown.clone()).await
}
