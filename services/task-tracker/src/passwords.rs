//! Hashing and checking passwords with argon2id.
//!
//! The one rule: work that takes longer than a request's other work leaves the threads that serve requests.

use anyhow::Context as _;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};

use crate::settings::{Argon2Cost, Argon2Parameters};

/// Hashes at one cost; checks at whatever cost a hash names.
#[derive(Clone)]
pub struct Passwords {
    argon2: Argon2<'static>,
    /// At the least cost a hash is quicker than the way to another thread and back.
    blocking: bool,
    /// What an unknown user's password is checked against, so that the answer takes as long as a known one's.
    nobody: String,
}

impl Passwords {
    /// # Errors
    /// When the cost is outside of what the algorithm allows.
    pub fn new(cost: Argon2Cost) -> anyhow::Result<Self> {
        let params = match cost {
            Argon2Cost::Minimum => Params::new(Params::MIN_M_COST, Params::MIN_T_COST, Params::MIN_P_COST, None),
            Argon2Cost::Default => Ok(Params::DEFAULT),
            Argon2Cost::Custom(Argon2Parameters { memory_kib, iterations, lanes }) => {
                Params::new(memory_kib, iterations, lanes, None)
            }
        };
        let params = params.map_err(|error| {
            anyhow::anyhow!(
                "settings.argon2: {error}; give \"minimum\", \"default\", or at least 8 KiB a lane, 1 iteration, 1 lane"
            )
        })?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let nobody = hash(&argon2, "nobody").context("hashing a first password")?;
        Ok(Self { argon2, blocking: cost != Argon2Cost::Minimum, nobody })
    }

    /// The hash of a password, salt and cost included.
    ///
    /// # Errors
    /// When the operating system gives no random salt or no memory.
    pub async fn hash(&self, password: String) -> anyhow::Result<String> {
        let argon2 = self.argon2.clone();
        self.run(move || hash(&argon2, &password)).await?
    }

    /// Whether a password belongs to a hash; an unknown user's hash is none.
    ///
    /// # Errors
    /// When no thread could be had.
    pub async fn matches(&self, password: String, hash: Option<String>) -> anyhow::Result<bool> {
        let (argon2, known) = (self.argon2.clone(), hash.is_some());
        let hash = hash.unwrap_or_else(|| self.nobody.clone());
        self.run(move || {
            let verified =
                PasswordHash::new(&hash).is_ok_and(|hash| argon2.verify_password(password.as_bytes(), &hash).is_ok());
            known && verified
        })
        .await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
        if self.blocking {
            tokio::task::spawn_blocking(work).await.context("hashing a password on a thread of its own")
        } else {
            Ok(work())
        }
    }
}

fn hash(argon2: &Argon2<'_>, password: &str) -> anyhow::Result<String> {
    let hash = argon2.hash_password(password.as_bytes()).map_err(|error| anyhow::anyhow!("argon2: {error}"))?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_matches_its_own_hash_only() {
        let passwords = Passwords::new(Argon2Cost::Minimum).unwrap();
        let hash = passwords.hash("correct horse".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$"));
        for (password, hash, expected) in [
            ("correct horse", Some(hash.clone()), true),
            ("battery staple", Some(hash), false),
            ("nobody", None, false),
            ("anything", Some("not a hash".into()), false),
        ] {
            assert_eq!(passwords.matches(password.into(), hash).await.unwrap(), expected, "{password}");
        }
    }

    #[test]
    fn a_cost_the_algorithm_refuses_is_refused_with_the_way_out() {
        let cost = Argon2Cost::Custom(Argon2Parameters { memory_kib: 1, iterations: 0, lanes: 1 });
        let error = Passwords::new(cost).err().unwrap().to_string();
        assert!(error.contains("settings.argon2") && error.contains("at least 8 KiB"), "{error}");
    }
}
