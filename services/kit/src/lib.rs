//! What a role stands on.
//!
//! A *role* is a part of a system that can be started, replicated, pinned, killed and measured. This crate gives a
//! role everything it may not take for itself: a clock, random numbers, a listener that is already bound, a recorder
//! for its operations, a place to say that it is ready, and the signal to stop. It also hosts a role, as a process of
//! its own ([`host::run_process`]) or on threads of this process ([`host::start`]).
//!
//! The one rule: nothing here knows a system or the lab. `kit ← services/* ← scalelab`.

pub mod admin;
pub mod batch;
pub mod clock;
pub mod config;
pub mod extension;
mod gate;
pub mod host;
pub mod http;
pub mod journal;
mod latencies;
mod metrics;
pub mod op;
pub mod recorder;
pub mod role;
pub mod schedule;
pub mod series;
pub mod shutdown;
pub mod usage;

pub use clock::Clock;
pub use config::RoleConfig;
pub use extension::Extension;
pub use journal::Journal;
pub use op::{Op, OpsRecord, Outcome};
pub use recorder::{Recorder, Shard};
pub use role::{Env, Role};
pub use schedule::{Schedule, Stage};
pub use shutdown::Shutdown;

/// The generator every seeded decision uses: small, fast and the same on every platform.
pub type Rng = rand_chacha::ChaCha8Rng;

/// A generator for one named purpose. Two purposes never share a stream, so adding draws to one leaves the other as
/// it was.
pub fn rng(seed: u64, purpose: &str) -> Rng {
    use rand::SeedableRng;
    // FNV-1a: stable across versions and platforms, which the standard hasher does not promise.
    let hash = purpose
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    Rng::seed_from_u64(seed ^ hash)
}

/// A URL without its password, for messages and archives: neither before the host nor as a parameter.
pub fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    // A password may hold an `@`, a host not.
    let authority = match rest.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((name, _)) => format!("{name}:***@{host}"),
            None => rest.to_owned(),
        },
        None => rest.to_owned(),
    };
    let query = query.map(|query| {
        let parts = query.split('&').map(|part| match part.split_once('=') {
            Some((name, _)) if is_secret(name) => format!("{name}=***"),
            _ => part.to_owned(),
        });
        format!("?{}", parts.collect::<Vec<_>>().join("&"))
    });
    format!("{scheme}://{authority}{}", query.unwrap_or_default())
}

/// Whether something of this name (a header, a parameter) is likely to be secret.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["authorization", "cookie", "token", "key", "secret", "password"].iter().any(|word| name.contains(word))
}

/// A random secret of 32 bytes in hexadecimal, from the operating system; never derived from a seed.
pub fn secret() -> std::io::Result<String> {
    let mut bytes = [0_u8; 32];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_never_shows_in_a_message() {
        for (url, shown) in [
            ("plain", "plain"),
            ("sqlite:/data/app.db", "sqlite:/data/app.db"),
            ("http://h/a?page=2", "http://h/a?page=2"),
            ("postgres://host/app", "postgres://host/app"),
            ("postgres://me@host/app", "postgres://me@host/app"),
            ("postgres://me:secret@host:5432/app", "postgres://me:***@host:5432/app"),
            ("postgres://me:p@ss:w/d@host/app", "postgres://me:***@host/app"),
            ("postgres:///app?host=/run&password=hunter2", "postgres:///app?host=/run&password=***"),
        ] {
            assert_eq!(redacted(url), shown);
        }
    }

    #[test]
    fn two_purposes_never_share_a_stream_and_one_is_always_the_same() {
        use rand::RngExt as _;
        let draw = |purpose: &str| rng(7, purpose).random::<u64>();
        assert_eq!(draw("think"), draw("think"));
        assert_ne!(draw("think"), draw("order"));
    }
}
