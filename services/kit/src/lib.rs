//! What a role stands on.
//!
//! A *role* is a part of a system that can be started, replicated, pinned, killed and measured. This crate gives a
//! role everything it may not take for itself: a clock, random numbers, a listener that is already bound, a recorder
//! for its operations, a place to say that it is ready, and the signal to stop. It also hosts a role, as a process of
//! its own ([`host::run_process`]) or on threads of this process ([`host::start`]).
//!
//! The one rule: nothing here knows a system or the lab. `kit ← services/* ← scalelab`.

pub mod admin;
pub mod clock;
pub mod config;
pub mod host;
pub mod http;
pub mod op;
pub mod recorder;
pub mod role;
pub mod series;
pub mod shutdown;
pub mod usage;

pub use clock::Clock;
pub use config::RoleConfig;
pub use op::{Op, OpsRecord, Outcome};
pub use recorder::{Recorder, Shard};
pub use role::{Env, Role};
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

/// A random secret of 32 bytes in hexadecimal, from the operating system; never derived from a seed.
pub fn secret() -> std::io::Result<String> {
    let mut bytes = [0_u8; 32];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
