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

use crate::gateway::upstream::Upstream;
use crate::gateway::{Gateway, ROUTES};
use crate::metrics::{HttpMetrics, UpstreamMetrics};
use crate::operations::{OPERATIONS, Part};
use crate::passwords::Passwords;
use crate::service::Service;
use crate::settings::{GatewaySettings, RetrySettings, Settings};
use crate::shedding::InFlight;
use crate::stats::Counts;
use crate::store::{Migrations, Store};
use crate::tokens::Tokens;
use crate::{cors, datetime, openapi, tasks, users};

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
    let upstream = Upstream::new(&env, "task-service", &upstream, &UpstreamMetrics::register(&env))?;
    upstream.watch_readiness(&env.shutdown);
    serve_service(env, &settings, &[Part::Stats], None, Counts::TaskService(upstream)).await
}

async fn gateway(env: Env) -> anyhow::Result<()> {
    let settings: Settings = env.config.settings()?;
    let metrics = UpstreamMetrics::register(&env);
    let upstreams: anyhow::Result<Vec<_>> =
        ROUTES.iter().map(|(_, name)| Upstream::new(&env, name, &settings.gateway, &metrics)).collect();
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
    let checked = gateway.clone();
    env.status.check_with(Arc::new(move || {
        let checked = checked.clone();
        Box::pin(async move { checked.readiness() })
    }));
    serve(env, &settings, gateway.router()).await
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
        metrics: HttpMetrics::register(&env),
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
