//! One task-tracking application in two assemblies: a monolith, or a gateway with three services.
//!
//! The one rule: both are made of the same operations and the same handlers. What differs is which role has which
//! operations ([`operations::OPERATIONS`]), where the counts of the statistics come from ([`stats::Counts`]), and the
//! hop through the gateway. So when they are compared, the architecture is what is compared.
//!
//! Equal work: each request's token is checked by the role that answers it, with the key and the clock alone. The
//! gateway checks none. Only `/stats/` is checked twice among microservices, because two services answer it.
//!
//! | role | secrets | peers |
//! |---|---|---|
//! | `monolith`, `user-service`, `task-service` | `jwt_key`, `database_url` | |
//! | `stats-service` | `jwt_key` | `task-service` |
//! | `gateway` | | `user-service`, `task-service`, `stats-service` |
//!
//! All roles of a run share one key, and replicas of a service one database. [`Settings`] are the same for every role.

pub mod cors;
pub mod datetime;
pub mod fields;
pub mod gateway;
pub mod gauges;
pub mod metrics;
pub mod openapi;
pub mod operations;
pub mod passwords;
pub mod refusal;
pub mod roles;
pub mod service;
pub mod settings;
pub mod shedding;
pub mod stats;
pub mod store;
pub mod tasks;
pub mod tokens;
pub mod users;

pub use roles::ROLES;
pub use settings::{Argon2Cost, GatewaySettings, Settings};
